"""The tuner: batch size and numbers of threads, found by running the first photos, and remembered for the next run."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..assets import cache_dir
from ..engines.backends import backend_of, open_runner
from ..engines.engine import EngineInfo
from ..engines.runner import Runner
from ..errors import ConfigError, OutOfMemoryError, StorageError
from ..extras import require
from ..files import write_durable
from ..records import Batch, Encoded
from ..schema import read_json
from ..sources.source import Source
from .request import Request
from .settings import Settings, default_settings, usable_cores
from .stages import StageClock
from .work import Decode, Read
from .worker import open_embed_on_gpu

if TYPE_CHECKING:
    from .gpu_embed import EmbedOnGpu

logger = logging.getLogger(__name__)

TUNE_FROM_ROWS = 1024  # a shorter run would not earn back the seconds that tuning takes
_TUNE_ROWS = 256
_TUNE_AT_LEAST = 64
_PROBE_S = 0.25
_FINAL_S, _FINAL_TURNS = 0.3, 3
_PAST_PEAK = 0.9
_WAITING = 1.1  # threads of one call wait for each other, and longer beside decoders than where they are tried alone
_GPU_PROBE_S = 0.7
_GPU_SLOTS = (2, 3, 4)
_GPU_BATCHES = (64, 128, 256, 512, 1024)
_RULE = 2  # of the choice: what another one chose is not remembered


def tune(request: Request, source: Source, rows: NDArray[np.int64]) -> Settings | None:
    """Settings for a request, from its first photos that can be decoded; None if there are too few.

    They are remembered for the next run, unless the user gave the batch size.

    Args:
        request: its decoder is chosen.
        source: of the photos.
        rows: (n,) int64, to do.
    """
    logger.info("tuning on the first %d photographs", _TUNE_ROWS)
    first = Read(source)(Batch(rows[:_TUNE_ROWS]))
    settings = _tune_on_gpu(request, first) if request.decoder == "dali" else _tune_on_cpu(request, first)
    if settings is not None and request.run.batch_size is None:
        remember_settings(request.engine.info, works_before(request), settings)
    return settings


def _tune_on_cpu(request: Request, first: Encoded) -> Settings | None:
    info = request.engine.info
    decode = Decode(info.size, info.channel_order, request.limits)
    images = decode(first).images
    if len(images) < _TUNE_AT_LEAST:
        return None
    few = Encoded(first.rows[:8], files=first.files[:8])
    return tune_cpu(
        info,
        lambda threads: open_runner(request.engine, threads=threads),
        images,
        lambda: decode(few),
        per_decode=len(few.files),
        batch_size=request.run.batch_size,
    )


def _tune_on_gpu(request: Request, first: Encoded) -> Settings | None:
    if len(first.files) < _TUNE_AT_LEAST:
        return None
    clocks = {name: StageClock(name, 1) for name in ("decode", "detect", "infer")}
    return tune_gpu(
        request.engine.info,
        lambda settings: open_embed_on_gpu(request, settings, clocks),
        first.files,
        batch_size=request.run.batch_size,
    )


def tune_cpu(
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


def tune_gpu(
    info: EngineInfo,
    open_embed: Callable[[Settings], AbstractContextManager[EmbedOnGpu]],
    files: Sequence[bytes],
    *,
    batch_size: int | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Settings:
    """Run the first photos at several batch sizes, with several batches in flight, and keep the fastest.

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
    sizes = [batch_size] if batch_size else [b for b in _GPU_BATCHES if low <= b <= high] or [usual.batch_size]
    found: dict[Settings, float] = {}
    for slots in _GPU_SLOTS:
        largest = Settings(sizes[-1], slots, 1, usual.decoders, usual.readers)
        try:
            with open_embed(largest) as embed:
                for size in sizes:
                    settings = Settings(size, slots, 1, usual.decoders, usual.readers)
                    found[settings] = measure_rate(_batches_of(embed, files, size), slots, _GPU_PROBE_S, clock)
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


def _batches_of(embed: EmbedOnGpu, files: Sequence[bytes], size: int) -> Callable[[int], int]:
    batch = Encoded(np.arange(size), files=tuple(itertools.islice(itertools.cycle(files), size)))

    def call(_: int) -> int:
        embed.limit.size = size  # a larger one may have been halved
        embed(batch)
        if embed.limit.size < size:
            raise OutOfMemoryError(f"a batch of {size} does not fit")
        return size

    return call


def works_before(request: Request) -> str:
    """A name for the work before the engine, for which settings are remembered too: the decoder and any detector."""
    decoder = "opencv" if request.decoder == "auto" else request.decoder
    return f"{decoder}, {request.detector.info.engine_sha256}, {request.faces.policy}" if request.detector else decoder


def settings_file(info: EngineInfo, before: str) -> Path:
    """Where the settings of this engine, behind what `works_before` names, on this machine are remembered."""
    key = json.dumps(
        [_RULE, info.engine_sha256, info.device, before, platform.processor(), platform.node(), usable_cores()]
    )
    return cache_dir("tuning") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall_settings(info: EngineInfo, before: str) -> Settings | None:
    """Settings found before, or None."""
    try:
        return read_json(settings_file(info, before).read_bytes(), Settings)
    except (OSError, ValueError):
        return None


def remember_settings(info: EngineInfo, before: str, settings: Settings) -> None:
    """Keep settings for the next run; a cache that cannot be written is no failure."""
    try:
        path = settings_file(info, before)
        write_durable(path, json.dumps(asdict(settings)).encode(), "the settings for the next run", wait=True)
    except (StorageError, ConfigError) as err:
        logger.warning("the settings found cannot be kept for the next run: %s", err)
