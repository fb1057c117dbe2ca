"""Compare face detection on the GPU with decoding alone, detection alone and the engine alone, on portraits.

gpu_throughput.py uses this module for `--detector`. Detection alone: the photos are already on the device, and their
views go through the detector's engine repeatedly; the CPU's work on its answers is included.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_throughput
import numpy as np

if TYPE_CHECKING:
    from runtime.engines.engine import Engine


def open_decoders(detector_info: Any, settings: Any, device: str, stack: ExitStack) -> list[Any]:
    """Open one photo decoder per slot, as the pipeline does."""
    from runtime.faces.rules import FaceRules
    from runtime.faces.selection import LONG_SIDE
    from runtime.images.dali_photos import DaliPhotos
    from runtime.images.jpeg_runs import DaliOptions

    views = [view.long_side for view in FaceRules("detect").find.views]
    threads = math.ceil(settings.decoders / settings.streams)
    options = DaliOptions(device=device, batch_size=settings.batch_size, threads=threads)
    return [
        stack.enter_context(DaliPhotos(views, LONG_SIDE, detector_info.channel_order, options))
        for _ in range(settings.streams)
    ]


def decode_alone(files: Sequence[bytes], detector_info: Any, settings: Any, device: str, total: int) -> float:
    """Photos per second from files to pixels and views on the device, with no later stage."""
    take = gpu_throughput.make_batch_reader(files, settings.batch_size)
    with ExitStack() as stack:
        decoders = open_decoders(detector_info, settings, device, stack)

        def work(number: int) -> int:
            for _ in decoders[number].decode(take()):
                pass
            return int(settings.batch_size)

        return gpu_throughput.run_in_threads(settings.streams, work, total)


def detect_on_device(files: Sequence[bytes], detector: Engine, settings: Any, total: int) -> float:
    """Photos per second from pixels on the device to chosen faces."""
    from runtime.engines.tensorrt.runner import TensorRTRunner
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.gpu_detect import DetectOnGpu, SelectedFaces

    with (
        TensorRTRunner(detector.content(), detector.info, slots=settings.streams) as runner,
        runner.driver,
        ExitStack() as stack,
    ):
        rules = FaceRules("detect")
        detect = DetectOnGpu(runner, rules, 112)
        runs = [
            list(decoder.decode(files[: settings.batch_size]))
            for decoder in open_decoders(runner.info, settings, "mixed", stack)
        ]
        rows = np.arange(settings.batch_size)

        def work(number: int) -> int:
            for run in runs[number]:
                SelectedFaces().add(run, detect(run), rows, rules)
            return sum(len(run.photos) for run in runs[number])

        return gpu_throughput.run_in_threads(settings.streams, work, total)


def detect_on_host(files: Sequence[bytes], detector: Engine, settings: Any, total: int) -> float:
    """Photos per second from pixels to chosen faces on the CPU, to try the command."""
    from runtime.engines.backends import open_runner
    from runtime.faces.rules import FaceRules
    from runtime.images.decode import Limits
    from runtime.modelspec import load_spec
    from runtime.pipeline.face_work import DecodePhotos, find_faces_with
    from runtime.records import Encoded

    with open_runner(detector, threads=1) as runner:
        photos = DecodePhotos("rgb", Limits())(Encoded(np.arange(64), files=tuple(itertools.islice(files, 64))))
        rules = FaceRules("detect")
        find = find_faces_with(runner, rules, load_spec("facemill-512"), Limits())

        def work(_: int) -> int:
            find(photos)
            return 64

        return gpu_throughput.run_in_threads(settings.streams, work, total)


def measure_faces(
    engine: Engine,
    detector: Engine,
    photos: Path,
    *,
    count: int,
    repeat: int,
    rounds: int,
    folder: Path,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Measure all rates, round by round; arguments and result are those of `gpu_throughput.measure`."""
    from runtime.engines.backends import open_runner
    from runtime.engines.parity import synthetic_crops
    from runtime.engines.tensorrt.runner import TensorRTRunner
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    info, detector_info = engine.info, detector.info
    on_gpu = info.backend == "tensorrt"
    listing, paths = gpu_throughput.write_list(photos, folder, repeat)
    files = [path.read_bytes() for path in paths[:8192]]
    request = Request((f"@{listing}",), folder / "out.h5", engine, faces=FaceRules("detect"), detector=detector)
    settings = gpu_throughput.tune_settings(request, info)
    crops = np.resize(synthetic_crops(info.size), (settings.batch_size, info.size, info.size, 3))
    detect: Callable[..., float] = detect_on_device if on_gpu else detect_on_host
    total = min(count, len(files))
    rates: dict[str, list[float]] = {}

    def note(name: str, rate: float) -> None:
        rates.setdefault(name, []).append(rate)

    began = time.perf_counter()
    for round_number in range(1, rounds + 1):
        note("decode alone", decode_alone(files, detector_info, settings, "mixed" if on_gpu else "cpu", total))
        note("detect alone", detect(files, detector, settings, total))
        with (
            TensorRTRunner(engine.content(), engine.info, slots=settings.streams)
            if on_gpu
            else open_runner(engine, threads=1)
        ) as runner:
            note("engine alone", gpu_throughput.engine_alone(runner, crops, settings, total))
        with gpu_throughput.GpuUtilisation() as used:
            result = process(request)
        request.output.unlink()
        note("whole pipeline", result.images_per_s)
        if (time.perf_counter() - began) * (round_number + 1) / round_number > seconds:
            break
    figures = {**gpu_throughput.summarise(rates, settings), "outcomes": result.outcomes, "stages": result.stages}
    return {**figures, "idle": None, "busy": used.busy if on_gpu else None}
