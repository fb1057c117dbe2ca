"""Batch size and worker counts: given, remembered, or found by running the first photographs."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..assets import cache_dir
from ..engines.backends import backend_of
from ..engines.engine import EngineInfo
from ..engines.runner import Runner
from ..errors import ConfigError, OutOfMemoryError

logger = logging.getLogger(__name__)

_PROBE_S = 0.25
_FINAL_S, _FINAL_TURNS = 0.3, 3
_PAST_PEAK = 0.9
_WAITING = 1.1  # threads of one call wait for each other, and longer beside decoders than where they are tried alone
_RULE = 2  # of the choice: what another one chose is not remembered


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
    if not backend_of(info.backend).on_gpu:
        return Settings(min(8, info.profile[2]), cores, 1, max(1, cores))
    return Settings(info.profile[1], 3, 1, cores, min(4, cores))


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

    Every candidate gets a short probe, batch sizes rising until the rate falls; the three best take turns with a longer
    one, so that what else the machine does meets all of them, and their medians decide.

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
    if backend_of(info.backend).on_gpu:
        shapes = {(1, 1), (2, 1)}  # two batches on the GPU are what a runner has slots for
    low, _, high = info.profile
    sizes = [batch_size] if batch_size else [b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256) if low <= b <= high]
    sizes = [b for b in sizes if b <= len(images)] or [len(images)]
    with ExitStack() as stack:
        runners = {threads: stack.enter_context(open_runner(threads)) for threads in {t for _, t in shapes}}
        found: dict[tuple[int, int, int], float] = {}
        for streams, threads in sorted(shapes):
            peak = 0.0
            for size in sizes:
                rate = measure_rate(_infer(runners[threads], images, size), streams, _PROBE_S, clock)
                found[size, streams, threads] = rate
                if rate < _PAST_PEAK * peak:
                    break  # larger batches cost seconds to try and only get slower, or did not fit
                peak = max(peak, rate)

        def worth(key: tuple[int, int, int], rate: float) -> float:
            return rate / _WAITING if key[2] > 1 else rate

        best = sorted(found, key=lambda key: -worth(key, found[key]))[:3]
        final: dict[tuple[int, int, int], list[float]] = {key: [] for key in best}
        for _ in range(_FINAL_TURNS):
            for key, rates in final.items():
                rates.append(measure_rate(_infer(runners[key[2]], images, key[0]), key[1], _FINAL_S, clock))
    medians = {key: statistics.median(rates) for key, rates in final.items()}
    (size, streams, threads), rate = max(medians.items(), key=lambda item: worth(*item))
    decoders = _decoders(decode_once, rate / per_decode, cores, clock)
    logger.info("tuned: batch %d, %d x %d threads, %.0f images/s by the engine", size, streams, threads, rate)
    return Settings(size, streams, threads, decoders)


def _infer(runner: Runner, images: NDArray[np.uint8], size: int) -> Callable[[int], int]:
    """A call for `measure_rate`: one batch, another one at every turn, from any thread."""
    turns = itertools.count()

    def call(_: int) -> int:
        start = next(turns) * size % (len(images) - size + 1)
        runner.infer(images[start : start + size])
        return size

    return call


def measure_rate(call: Callable[[int], int], streams: int, seconds: float, clock: Callable[[], float]) -> float:
    """Photographs per second of `streams` threads that call for so long; 0 when they run out of memory.

    Args:
        call: does some photographs and says how many; called with the number of the thread, from 0.
        streams: threads.
        seconds: how long, after one call each that does not count.
        clock: seconds.
    """
    counts = [0] * streams
    failed: list[BaseException] = []

    def work(stream: int) -> None:
        try:
            call(stream)  # warm-up
            barrier.wait()
            while counts[stream] == 0 or clock() < began[0] + seconds:
                counts[stream] += call(stream)
        except BaseException as err:
            failed.append(err)
            barrier.abort()

    began = [0.0]

    def start() -> None:
        began[0] = clock()

    barrier = threading.Barrier(streams, action=start)  # read before anyone goes on
    workers = [threading.Thread(target=work, args=(stream,), daemon=True) for stream in range(streams)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    real = [err for err in failed if not isinstance(err, threading.BrokenBarrierError)]
    if any(not isinstance(err, OutOfMemoryError) for err in real):
        raise real[0]
    return 0.0 if failed else sum(counts) / max(1e-9, clock() - began[0])


def _decoders(decode_once: Callable[[], object], rate: float, cores: int, clock: Callable[[], float]) -> int:
    """Threads that make `rate` calls a second with half to spare, at most one a core."""
    decode_once()
    began = clock()
    for _ in range(8):
        decode_once()
    cost = (clock() - began) / 8
    return int(min(max(1, np.ceil(1.5 * rate * cost)), cores))


def works_before(decoder: str, detector: EngineInfo | None, policy: str) -> str:
    """A name for what photographs go through before the engine: the decoder, and the detector if there is one."""
    return f"{decoder}, {detector.engine_sha256}, {policy}" if detector else decoder


def settings_file(info: EngineInfo, before: str) -> Path:
    """Where the settings of this engine, behind what `works_before` names, on this machine are remembered."""
    key = json.dumps(
        [_RULE, info.engine_sha256, info.device, before, platform.processor(), platform.node(), usable_cores()]
    )
    return cache_dir("tuning") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall_settings(info: EngineInfo, before: str) -> Settings | None:
    """Settings found before, or None."""
    try:
        return Settings(**json.loads(settings_file(info, before).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None


def remember_settings(info: EngineInfo, before: str, settings: Settings) -> None:
    """Keep settings for the next run; a cache that cannot be written is no failure."""
    try:
        path = settings_file(info, before)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(settings)), encoding="utf-8")
        partial.replace(path)
    except (OSError, ConfigError) as err:
        logger.warning("the settings found cannot be kept for the next run: %s", err)


def with_given(settings: Settings, batch_size: int | None, workers: int | None) -> Settings:
    """Settings with what the user gave in place of what was found."""
    return replace(settings, batch_size=batch_size or settings.batch_size, decoders=workers or settings.decoders)
