"""Find out whether the answer of an engine for an image depends on what else is computed with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .engine import EngineInfo
from .runner import Runner

_SIZES = 1, 2, 3, 4, 6, 8, 16  # images in a call; queries of more faces are split into calls of 16
_DETECTOR_SIDES = 160, 128  # pixels; those of a portrait in the first view of the finder


def same_bits(runners: Sequence[Runner]) -> bool:
    """Whether runners of one engine answer the same bits for an image alone and for several together.

    Kernels are chosen by the shapes of a call and the number of threads, never by the content, so noise shows it.

    Args:
        runners: runners of one engine, for different numbers of threads.
    """
    sizes = [size for size in _SIZES if size <= runners[0].info.profile[2]]
    images = _noise(runners[0].info, sizes[-1])  # (n, H, W, 3) uint8
    alone = np.concatenate([runners[0].infer(images[i : i + 1]) for i in range(len(images))])
    return all(np.array_equal(runner.infer(images[:size]), alone[:size]) for runner in runners for size in sizes)


def _noise(info: EngineInfo, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    sides = _DETECTOR_SIDES if info.task == "detect" else (info.size, info.size)
    return np.random.default_rng(0).integers(0, 256, (count, *sides, 3), dtype=np.uint8)
