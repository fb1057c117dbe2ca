"""Batch size and slots for a GPU that decodes and embeds, found by running the first photographs."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from ..engines.engine import EngineInfo
from ..errors import OutOfMemoryError
from ..extras import require
from ..records import Encoded
from .gpu_embed import OnDevice
from .settings import Settings, default_settings, measure_rate

logger = logging.getLogger(__name__)

_PROBE_S = 0.7
_SLOTS = (2, 3, 4)
_BATCHES = (64, 128, 256, 512, 1024)


def tune_device(
    info: EngineInfo,
    open_embed: Callable[[Settings], AbstractContextManager[OnDevice]],
    files: Sequence[bytes],
    *,
    batch_size: int | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Settings:
    """Run the first photographs at several batch sizes, with several batches in flight, and keep the fastest.

    Args:
        info: of the engine.
        open_embed: the stage's work with these settings.
        files: the first photographs, encoded, at least one; damaged ones among them do no harm.
        batch_size: given by the user, or None to search.
        clock: seconds; tests give their own.
    Returns:
        The fastest settings seen.
    """
    usual = default_settings(info)
    low, _, high = info.profile
    sizes = [batch_size] if batch_size else [b for b in _BATCHES if low <= b <= high] or [usual.batch_size]
    found: dict[Settings, float] = {}
    for slots in _SLOTS:
        largest = Settings(sizes[-1], slots, 1, usual.decoders, usual.readers)
        try:
            with open_embed(largest) as embed:
                for size in sizes:
                    settings = Settings(size, slots, 1, usual.decoders, usual.readers)
                    found[settings] = measure_rate(_batches_of(embed, files, size), slots, _PROBE_S, clock)
        except OutOfMemoryError as err:
            logger.info("tuning: %d slots do not fit: %s", slots, err)
            break
        finally:
            # DALI keeps what its decoders had; the next plan would take it for used, and count new decoders besides.
            require("nvidia.dali.backend", extra="gpu").ReleaseUnusedMemory()
    if not found:
        return usual
    best = max(found, key=lambda settings: found[settings])
    logger.info("tuned: batch %d, %d in flight, %.0f images/s", best.batch_size, best.streams, found[best])
    return best


def _batches_of(embed: OnDevice, files: Sequence[bytes], size: int) -> Callable[[int], int]:
    batch = Encoded(np.arange(size), files=tuple(itertools.islice(itertools.cycle(files), size)))

    def call(_: int) -> int:
        embed.slices.size = size  # a larger one may have been halved
        embed(batch)
        if embed.slices.size < size:
            raise OutOfMemoryError(f"a batch of {size} does not fit")
        return size

    return call
