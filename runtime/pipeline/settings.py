"""Batch size and worker counts: given, remembered, or found by running the first photographs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..assets import cache_dir
from ..engines.runner import Runner
from ..engines.sidecar import EngineInfo
from ..errors import ConfigError, OutOfMemoryError

logger = logging.getLogger(__name__)

_PROBE_S = 0.25
_FINAL_S = 0.6
_PAST_PEAK = 0.9


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run divides its work.

    Attributes:
        batch_size: images in one call of the engine.
        streams: calls of the engine at once.
        threads: threads inside one call.
        decoders: threads that decode.
        readers: threads that read files; more than cores, since they wait for disks.
    """

    batch_size: int
    streams: int
    threads: int
    decoders: int
    readers: int = 2


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def default_settings(info: EngineInfo) -> Settings:
    """Settings for a run too short to tune."""
    cores = usable_cores()
    if info.backend == "cpu":
        return Settings(min(8, info.profile[2]), cores, 1, max(1, cores))
    return Settings(info.profile[1], 2, 1, cores)


def tune(
    info: EngineInfo,
    open_runner: Callable[[int], Runner],
    images: NDArray[np.uint8],
    decode_once: Callable[[], object],
    *,
    per_decode: int,
    batch_size: int | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Settings:
    """Run the first photographs at several batch sizes and worker counts and keep the fastest.

    Every candidate gets a short probe, batch sizes rising until the rate falls; the three best get a longer one.

    Args:
        info: of the engine.
        open_runner: opens the engine with so many threads a call.
        images: (n, S, S, 3) uint8, the first photographs, decoded.
        decode_once: decodes `per_decode` of them, to set their cost against the engine's.
        per_decode: photographs in one call of `decode_once`.
        batch_size: given by the user, or None to search.
        clock: seconds; tests give their own.
    Returns:
        The fastest settings seen.
    """
    cores = usable_cores()
    shapes = {(cores, 1), (1, cores), (max(1, cores // 2), 2 if cores > 1 else 1)}
    if info.backend != "cpu":
        shapes = {(1, 1), (2, 1), (3, 1)}
    low, _, high = info.profile
    sizes = [batch_size] if batch_size else [b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256) if low <= b <= high]
    sizes = [b for b in sizes if b <= len(images)] or [len(images)]
    with ExitStack() as stack:
        runners = {threads: stack.enter_context(open_runner(threads)) for threads in {t for _, t in shapes}}
        found: dict[tuple[int, int, int], float] = {}
        for streams, threads in sorted(shapes):
            peak = 0.0
            for size in sizes:
                rate = _rate(runners[threads], images, size, streams, _PROBE_S, clock)
                found[size, streams, threads] = rate
                if rate < _PAST_PEAK * peak:
                    break  # larger batches cost seconds to try and only get slower, or did not fit
                peak = max(peak, rate)
        best = sorted(found, key=lambda key: -found[key])[:3]
        final = {key: _rate(runners[key[2]], images, key[0], key[1], _FINAL_S, clock) for key in best}
    (size, streams, threads), rate = max(final.items(), key=lambda item: item[1])
    decoders = _decoders(decode_once, rate / per_decode, cores, clock)
    logger.info("tuned: batch %d, %d x %d threads, %.0f images/s by the engine", size, streams, threads, rate)
    return Settings(size, streams, threads, decoders)


def _rate(
    runner: Runner,
    images: NDArray[np.uint8],
    size: int,
    streams: int,
    seconds: float,
    clock: Callable[[], float],
) -> float:
    """Images per second of `streams` threads that call the engine for so long; 0 when it runs out of memory."""
    counts = [0] * streams
    failed: list[BaseException] = []

    def call(stream: int) -> None:
        try:
            runner.infer(images[:size])  # warm-up, not counted
            barrier.wait()
            end = clock() + seconds
            while counts[stream] == 0 or clock() < end:
                start = (counts[stream] + stream * size) % (len(images) - size + 1)
                runner.infer(images[start : start + size])
                counts[stream] += size
        except BaseException as err:
            failed.append(err)
            barrier.abort()

    barrier = threading.Barrier(streams + 1)
    workers = [threading.Thread(target=call, args=(stream,), daemon=True) for stream in range(streams)]
    for worker in workers:
        worker.start()
    with suppress(threading.BrokenBarrierError):
        barrier.wait()
    began = clock()
    for worker in workers:
        worker.join()
    real = [err for err in failed if not isinstance(err, threading.BrokenBarrierError)]
    if any(not isinstance(err, OutOfMemoryError) for err in real):
        raise real[0]
    return 0.0 if failed else sum(counts) / max(1e-9, clock() - began)


def _decoders(decode_once: Callable[[], object], rate: float, cores: int, clock: Callable[[], float]) -> int:
    """Threads that make `rate` calls a second with half to spare, at most one a core."""
    decode_once()
    began = clock()
    for _ in range(8):
        decode_once()
    cost = (clock() - began) / 8
    return int(min(max(1, np.ceil(1.5 * rate * cost)), cores))


def settings_file(info: EngineInfo) -> Path:
    """Where the settings of this engine on this machine are remembered."""
    key = json.dumps([info.engine_sha256, info.device, platform.processor(), platform.node(), usable_cores()])
    return cache_dir("tuning") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall_settings(info: EngineInfo) -> Settings | None:
    """Settings found before, or None."""
    try:
        return Settings(**json.loads(settings_file(info).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None


def remember_settings(info: EngineInfo, settings: Settings) -> None:
    """Keep settings for the next run; a cache that cannot be written is no failure."""
    try:
        path = settings_file(info)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(settings)), encoding="utf-8")
        partial.replace(path)
    except (OSError, ConfigError) as err:
        logger.warning("the settings found cannot be kept for the next run: %s", err)


def with_given(settings: Settings, batch_size: int | None, workers: int | None) -> Settings:
    """Settings with what the user gave in place of what was found."""
    return replace(settings, batch_size=batch_size or settings.batch_size, decoders=workers or settings.decoders)
