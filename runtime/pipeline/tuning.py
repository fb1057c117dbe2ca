"""The tuner: measures batch sizes and numbers of threads on the first photos, and remembers the fastest."""

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
from ..interrupt import Control, pause
from ..records import Batch, Encoded
from ..regular import NOTE_BYTES, read_regular
from ..retries import retried
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

TUNE_FROM_ROWS = 1024  # a shorter run would not save the seconds that tuning takes
_TUNE_ROWS = 256
_MIN_TUNE_ROWS = 64
_PROBE_S = 0.25
_FINAL_PROBE_S, _FINAL_PROBES = 0.3, 3
_STOP_BELOW_PEAK = 0.9  # share of the best rate below which larger batches are not tried
# Threads of one call wait for each other, and longer when decoders run too than in a probe without them.
_MULTITHREAD_PENALTY = 1.1
_GPU_PROBE_S = 0.7
_GPU_SLOTS = (2, 3, 4)
_GPU_BATCHES = (64, 128, 256, 512, 1024)
_TUNER_VERSION = 2  # settings of another version are not reused


def tune(request: Request, source: Source, rows: NDArray[np.int64], control: Control) -> Settings | None:
    """Tune a request on its first photos that can be decoded; None if there are too few.

    The settings are remembered for the next run, unless the user gave the batch size.

    Args:
        request: a resolved request.
        source: the photos.
        rows: (n,) int64, the pending rows.
        control: stops the wait for a disk that does not answer.
    """
    logger.info("tuning on the first %d photos", _TUNE_ROWS)
    first = retried(lambda: Read(source)(Batch(rows[:_TUNE_ROWS])), lambda pause_s: pause(pause_s, control))
    settings = _tune_on_gpu(request, first) if request.decoder == "dali" else _tune_on_cpu(request, first)
    if settings is not None and request.run.batch_size is None:
        remember_settings(request.engine.info, preparation_key(request), settings)
    return settings


def _tune_on_cpu(request: Request, first: Encoded) -> Settings | None:
    info = request.engine.info
    decode = Decode(info.size, info.channel_order, request.limits)
    images = decode(first).images
    if len(images) < _MIN_TUNE_ROWS:
        return None
    sample = Encoded(first.rows[:8], files=first.files[:8])
    return tune_cpu(
        info,
        lambda threads: open_runner(request.engine, threads=threads),
        images,
        lambda: decode(sample),
        per_decode=len(sample.files),
        batch_size=request.run.batch_size,
    )


def _tune_on_gpu(request: Request, first: Encoded) -> Settings | None:
    if len(first.files) < _MIN_TUNE_ROWS:
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
    """Run the first photos with several batch sizes and worker counts, and return the fastest settings.

    Each candidate gets a short probe; batch sizes rise until the rate falls. The three best candidates take turns with
    longer probes, so that other load on the machine affects all of them, and their medians decide.

    Args:
        info: facts of the engine.
        open_runner: opens the engine with this number of threads per call.
        images: (n, S, S, 3) uint8, the first photos, decoded.
        decode_once: decodes `per_decode` photos, to compare the cost of decoding and inference.
        per_decode: photos in one call of `decode_once`.
        batch_size: batch size of the user, or None to search.
        clock: returns seconds; tests pass their own.
    """
    cores = usable_cores()
    shapes = {(cores, 1), (1, cores), (max(1, cores // 2), 2 if cores > 1 else 1)}  # (streams, threads)
    if backend_of(info.backend).on_gpu:
        shapes = {(1, 1), (2, 1)}  # a runner has slots for two batches on the GPU
    low, _, high = info.profile
    sizes = [batch_size] if batch_size else [b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256) if low <= b <= high]
    sizes = [b for b in sizes if b <= len(images)] or [len(images)]
    with ExitStack() as stack:
        runners = {threads: stack.enter_context(open_runner(threads)) for threads in {t for _, t in shapes}}
        probe_rates: dict[tuple[int, int, int], float] = {}
        for streams, threads in sorted(shapes):
            peak = 0.0
            for size in sizes:
                rate = measure_rate(_infer(runners[threads], images, size), streams, _PROBE_S, clock)
                probe_rates[size, streams, threads] = rate
                if rate < _STOP_BELOW_PEAK * peak:
                    break  # larger batches cost seconds to try, and are slower or do not fit
                peak = max(peak, rate)

        def score(key: tuple[int, int, int], rate: float) -> float:
            return rate / _MULTITHREAD_PENALTY if key[2] > 1 else rate

        best = sorted(probe_rates, key=lambda key: -score(key, probe_rates[key]))[:3]
        final: dict[tuple[int, int, int], list[float]] = {key: [] for key in best}
        for _ in range(_FINAL_PROBES):
            for key, rates in final.items():
                rates.append(measure_rate(_infer(runners[key[2]], images, key[0]), key[1], _FINAL_PROBE_S, clock))
    medians = {key: statistics.median(rates) for key, rates in final.items()}
    (size, streams, threads), rate = max(medians.items(), key=lambda item: score(*item))
    decoders = _decoders(decode_once, rate / per_decode, cores, clock)
    logger.info("tuned: batch %d, %d x %d threads, %.0f images/s by the engine", size, streams, threads, rate)
    return Settings(size, streams, threads, decoders)


def _infer(runner: Runner, images: NDArray[np.uint8], size: int) -> Callable[[int], int]:
    """Make a call for `measure_rate` that runs the next batch each time, from any thread."""
    turns = itertools.count()

    def call(_: int) -> int:
        start = next(turns) * size % (len(images) - size + 1)
        runner.infer(images[start : start + size])
        return size

    return call


def measure_rate(call: Callable[[int], int], streams: int, seconds: float, clock: Callable[[], float]) -> float:
    """Measure the photos per second of `streams` threads; 0 when they run out of memory.

    Args:
        call: processes photos and returns their number. It gets the number of the thread, from 0.
        streams: number of threads.
        seconds: duration, after a warm-up call of each thread.
        clock: returns seconds.
    """
    counts = [0] * streams
    failed: list[BaseException] = []

    def work(stream: int) -> None:
        try:
            call(stream)  # warm-up
            barrier.wait()
            while counts[stream] == 0 or clock() < start_s[0] + seconds:
                counts[stream] += call(stream)
        except BaseException as err:
            failed.append(err)
            barrier.abort()

    start_s = [0.0]

    def start() -> None:
        start_s[0] = clock()

    barrier = threading.Barrier(streams, action=start)  # the clock is read before any thread continues
    workers = [threading.Thread(target=work, args=(stream,), daemon=True) for stream in range(streams)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    causes = [err for err in failed if not isinstance(err, threading.BrokenBarrierError)]
    if any(not isinstance(err, OutOfMemoryError) for err in causes):
        raise causes[0]
    return 0.0 if failed else sum(counts) / max(1e-9, clock() - start_s[0])


def _decoders(decode_once: Callable[[], object], rate: float, cores: int, clock: Callable[[], float]) -> int:
    """Number of threads for `rate` calls per second and half as many in reserve; at most one per core."""
    decode_once()
    start_s = clock()
    for _ in range(8):
        decode_once()
    cost = (clock() - start_s) / 8
    return int(min(max(1, np.ceil(1.5 * rate * cost)), cores))


def tune_gpu(
    info: EngineInfo,
    open_embed: Callable[[Settings], AbstractContextManager[EmbedOnGpu]],
    files: Sequence[bytes],
    *,
    batch_size: int | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Settings:
    """Run the first photos with several batch sizes and several batches in flight, and return the fastest settings.

    Args:
        info: facts of the engine.
        open_embed: opens the stage with these settings.
        files: the first photos, encoded, at least one. Some may be damaged.
        batch_size: batch size of the user, or None to search.
        clock: returns seconds; tests pass their own.
    """
    default = default_settings(info)
    low, _, high = info.profile
    sizes = [batch_size] if batch_size else [b for b in _GPU_BATCHES if low <= b <= high] or [default.batch_size]
    rates: dict[Settings, float] = {}
    for slots in _GPU_SLOTS:
        largest = Settings(sizes[-1], slots, 1, default.decoders, default.readers)
        try:
            with open_embed(largest) as embed:
                for size in sizes:
                    settings = Settings(size, slots, 1, default.decoders, default.readers)
                    rates[settings] = measure_rate(_batches_of(embed, files, size), slots, _GPU_PROBE_S, clock)
        except OutOfMemoryError as err:
            logger.info("tuning: %d slots do not fit: %s", slots, err)
            break
        finally:
            # DALI keeps the memory of its decoders. The next memory plan would count it as used, and new decoders too.
            require("nvidia.dali.backend", extra="gpu").ReleaseUnusedMemory()
    if not rates:
        return default
    best = max(rates, key=lambda settings: rates[settings])
    logger.info("tuned: batch %d, %d in flight, %.0f images/s", best.batch_size, best.streams, rates[best])
    return best


def _batches_of(embed: EmbedOnGpu, files: Sequence[bytes], size: int) -> Callable[[int], int]:
    batch = Encoded(np.arange(size), files=tuple(itertools.islice(itertools.cycle(files), size)))

    def call(_: int) -> int:
        embed.limit.size = size  # an earlier, larger size may have been halved
        embed(batch)
        if embed.limit.size < size:
            raise OutOfMemoryError(f"a batch of {size} does not fit")
        return size

    return call


def preparation_key(request: Request) -> str:
    """Name the decoder and the engines that find faces, which are part of the key of remembered settings."""
    decoder = "opencv" if request.decoder == "auto" else request.decoder
    engines = [engine.info.engine_sha256 for engine in request.finders.values()]
    return ", ".join([decoder, *engines, request.faces.policy]) if engines else decoder


def settings_file(info: EngineInfo, preparation: str) -> Path:
    """The file of remembered settings, for this engine, a `preparation_key` and this machine."""
    key = json.dumps(
        [
            _TUNER_VERSION,
            info.engine_sha256,
            info.device,
            preparation,
            platform.processor(),
            platform.node(),
            usable_cores(),
        ]
    )
    return cache_dir("tuning") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall_settings(info: EngineInfo, preparation: str) -> Settings | None:
    """Read remembered settings, or None."""
    try:
        return read_json(read_regular(settings_file(info, preparation), NOTE_BYTES), Settings)
    except (OSError, ValueError):
        return None


def remember_settings(info: EngineInfo, preparation: str, settings: Settings) -> None:
    """Store settings for the next run. A failure to write them is only logged."""
    try:
        path = settings_file(info, preparation)
        data = json.dumps(asdict(settings)).encode()
        write_durable(path, data, "the settings for the next run", shared=True, wait=True)
    except (StorageError, ConfigError) as err:
        logger.warning("the tuned settings cannot be stored for the next run: %s", err)
