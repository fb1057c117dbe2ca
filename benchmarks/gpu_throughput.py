#!/usr/bin/env python3
"""Compare the pipeline on a GPU with decoding alone and the engine alone, alternating in one process.

    python benchmarks/gpu_throughput.py --engine engines/MODEL.plan --size 112x112 --count 20000 --repeat 5
    python benchmarks/gpu_throughput.py --model random-512 --size 300x400
    python benchmarks/gpu_throughput.py --model random-512 --size 300x400 --detector yunet

Decoding alone: one decoder per slot of the pipeline; crops are discarded. The engine alone: the same slots, with crops
already on the device. Crops from the host: inference is the bottleneck, with copies both ways. With a detector: see
gpu_faces.py. Without a GPU, `--backend cpu` measures the same on the CPU, to try the command.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import material
import numpy as np
from numpy.typing import NDArray
from report import RESULTS, write_results
from threads import time_threads

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

ALONE = ("decode alone", "detect alone", "engine alone")


class DiscardedCrops:
    """Discard decoded crops; without a stream, each run of DALI is waited for."""

    stream = None

    def put_run(self, place: int, crops: Any) -> None:
        pass

    def before_next_run(self) -> None:
        pass

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        pass


def run_in_threads(count: int, work: Callable[[int], int], total: int) -> float:
    """Photos per second of `count` threads that call `work(thread)` until `total` photos are done."""
    size = work(0)  # warm-up
    for number in range(1, count):
        work(number)
    items = range(0, total, size)
    return len(items) * size / time_threads(count, lambda number, _: work(number), items)


def make_batch_reader(files: Sequence[bytes], size: int) -> Callable[[], list[bytes]]:
    """Return a function that gives the next `size` files at each call, and starts over at the end."""
    starts = itertools.count(0, size)

    def take() -> list[bytes]:
        start = next(starts)
        return [files[i % len(files)] for i in range(start, start + size)]

    return take


def decode_alone(files: Sequence[bytes], info: Any, settings: Any, device: str, total: int) -> float:
    """Photos per second through the decoders of all slots, with no later stage."""
    from runtime.images.dali_crops import DaliDecoder
    from runtime.images.jpeg_runs import DaliOptions

    take = make_batch_reader(files, settings.batch_size)
    threads = math.ceil(settings.decoders / settings.streams)
    options = DaliOptions(device=device, batch_size=settings.batch_size, threads=threads)
    with ExitStack() as stack:
        decoders = [
            stack.enter_context(DaliDecoder(info.size, info.channel_order, options)) for _ in range(settings.streams)
        ]

        def work(number: int) -> int:
            decoders[number].decode(take(), DiscardedCrops())
            return settings.batch_size

        return run_in_threads(settings.streams, work, total)


def decode_opencv(files: Sequence[bytes], info: Any, settings: Any, total: int) -> float:
    """Photos per second of the CPU's decoder on all cores."""
    import cv2

    from runtime.images.decode import ImageError, decode_image

    cv2.setNumThreads(1)
    take = make_batch_reader(files, 64)

    def work(_: int) -> int:
        for data in take():
            try:
                decode_image(data, size=info.size, channel_order=info.channel_order)
            except ImageError:
                continue
        return 64

    return run_in_threads(len(os.sched_getaffinity(0)), work, total)


def engine_alone(runner: Any, images: NDArray[np.uint8], settings: Any, total: int) -> float:
    """Photos per second of slots whose crops are already on the device."""
    count = settings.batch_size
    if not hasattr(runner, "slot"):
        return run_in_threads(settings.streams, lambda _: len(runner.infer(images[:count])), total)
    with ExitStack() as stack:
        slots = [stack.enter_context(runner.slot()) for _ in range(min(settings.streams, runner.plan.slots))]
        for slot in slots:
            slot.fill(0, images[:count])

        def work(number: int) -> int:
            with runner.driver:
                slots[number].start(count)
                slots[number].finish(count)
            return count

        return run_in_threads(len(slots), work, total)


def infer_from_host(runner: Any, images: NDArray[np.uint8], settings: Any, total: int) -> float:
    """Photos per second of inference with crops from, and vectors to, the host's memory."""
    return run_in_threads(settings.streams, lambda _: len(runner.infer(images[: settings.batch_size])), total)


class GpuUtilisation:
    """Share of the time in which the GPU runs any kernel, by nvidia-smi; use it in `with`.

    Attributes:
        busy: 0 to 1, without the first second (a reading covers up to a second before it) and the last; None:
            nvidia-smi gave no reading.
    """

    def __init__(self) -> None:
        self.busy: float | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuUtilisation:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        with suppress(OSError):
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it takes a second to start
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        output, _ = self._process.communicate()
        numbers = [float(word) / 100 for word in output.split() if word.isdecimal()]
        steady = numbers[10:-10]  # ten a second
        if steady:
            self.busy = statistics.fmean(steady)


def tune_settings(request: Any, info: Any) -> Any:
    """Let the pipeline's tuner find the settings for these photos."""
    from dataclasses import replace

    from runtime.pipeline.run import process
    from runtime.pipeline.settings import default_settings
    from runtime.pipeline.tuning import preparation_key, recall_settings

    process(replace(request, limit=2048))
    request.output.unlink()
    state_key = preparation_key(replace(request, decoder="opencv" if info.backend == "cpu" else "dali"))
    return recall_settings(info, state_key) or default_settings(info)


def write_list(photos: Path, folder: Path, repeat: int) -> tuple[Path, list[Path]]:
    """Write a list file with a folder's JPEGs `repeat` times; returns it and the JPEGs' paths."""
    paths = sorted(photos.rglob("*.jpg"))
    listing = folder / "list.txt"
    listing.write_text("\n".join(str(path) for path in paths * repeat) + "\n")
    return listing, paths


def measure(
    engine: Engine,
    photos: Path,
    *,
    count: int,
    repeat: int,
    rounds: int,
    folder: Path,
    seconds: float = math.inf,
    keep: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> dict[str, Any]:
    """Measure all rates, round by round.

    Args:
        engine: engine to measure.
        photos: a folder of `count` JPEGs, some of them damaged.
        count: number of photos.
        repeat: how often one run of the pipeline reads them.
        rounds: maximum number of rounds.
        folder: folder for lists and outputs.
        seconds: after the first round, no round starts that would probably end later than this.
        keep: called with the figures so far after every round.
    """
    from runtime.engines.backends import open_runner
    from runtime.engines.tensorrt.runner import TensorRTRunner
    from runtime.faces.rules import FaceRules
    from runtime.images.decode import ImageError, decode_image
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    info = engine.info
    on_gpu = info.backend == "tensorrt"
    listing, paths = write_list(photos, folder, repeat)
    files = [path.read_bytes() for path in paths[:8192]]
    request = Request((f"@{listing}",), folder / "out.h5", engine, faces=FaceRules("none"))
    settings = tune_settings(request, info)
    images = []
    for data in files:
        try:
            images.append(decode_image(data, size=info.size, channel_order=info.channel_order))
        except ImageError:
            continue
        if len(images) == settings.batch_size:
            break
    crops = np.stack(images)
    total = min(count, len(files)) * (1 if not on_gpu else 4)
    rates: dict[str, list[float]] = {}

    def note(name: str, rate: float) -> None:
        rates.setdefault(name, []).append(rate)

    began, idle = time.perf_counter(), None
    for round_number in range(1, rounds + 1):
        note("decode alone", decode_alone(files, info, settings, "mixed" if on_gpu else "cpu", total))
        with (
            TensorRTRunner(engine.content(), engine.info, slots=settings.streams)
            if on_gpu
            else open_runner(engine, threads=1)
        ) as runner:
            note("engine alone", engine_alone(runner, crops, settings, total))
            if on_gpu and round_number == 1:
                photo_count = math.ceil(5 * rates["engine alone"][0])  # five seconds
                with GpuUtilisation() as utilisation:
                    note("crops from the host", infer_from_host(runner, crops, settings, photo_count))
                idle = None if utilisation.busy is None else 1 - utilisation.busy
        with GpuUtilisation() as utilisation:
            result = process(request)
        request.output.unlink()
        note("whole pipeline", result.images_per_s)
        if round_number == 1:
            note("OpenCV on all cores", decode_opencv(files, info, settings, total))
        figures = {**summarise(rates, settings), "outcomes": result.outcomes, "stages": result.stages}
        figures |= {"idle": idle, "busy": utilisation.busy if on_gpu else None}
        keep(figures)
        if (time.perf_counter() - began) * (round_number + 1) / round_number > seconds:
            break
    return figures


def summarise(rates: dict[str, list[float]], settings: Any) -> dict[str, Any]:
    """Summarise rounds: the whole pipeline compared with the slowest of its parts in the same round."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    alone = [name for name in ALONE if name in rates]
    ceilings = [min(values) for values in zip(*(rates[name] for name in alone), strict=True)]
    return {
        "medians": medians,
        "rounds": {name: list(values) for name, values in rates.items()},
        "of the ceiling": statistics.median(w / c for w, c in zip(rates["whole pipeline"], ceilings, strict=True)),
        "binding": min(alone, key=lambda name: medians[name]).removesuffix(" alone"),
        "settings": {name: getattr(settings, name) for name in type(settings).__slots__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, help="engine file; default: build one from --model")
    parser.add_argument("--model", default="random-512", help="embedding model; default: random-512")
    parser.add_argument("--detector", help="detector model, such as yunet; default: no detection")
    parser.add_argument("--backend", default="tensorrt", choices=["tensorrt", "cpu"], help="backend; default: tensorrt")
    parser.add_argument(
        "--size", default="112x112", help="size of the photos, WIDTHxHEIGHT in pixels; default: 112x112"
    )
    parser.add_argument("--count", type=int, default=20_000, help="number of photos; default: 20000")
    parser.add_argument("--repeat", type=int, default=5, help="how often one run reads them; default: 5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results; default: benchmarks/results")
    options = parser.parse_args()
    from runtime.engines.engine import read_engine

    width, _, height = options.size.partition("x")
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.draw_portraits(options.data, options.count, (int(width), int(height)), corrupt=0.01)
    engine = (
        read_engine(options.engine) if options.engine else material.build(options.model, options.data, options.backend)
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FACEMILL_CACHE", folder)
        options_of_run = {
            "count": options.count,
            "repeat": options.repeat,
            "rounds": options.rounds,
            "folder": Path(folder),
        }
        if options.detector:
            from gpu_faces import measure_faces

            figures = measure_faces(
                engine, material.build(options.detector, options.data, options.backend), photos, **options_of_run
            )
        else:
            figures = measure(engine, photos, **options_of_run)
    ceiling = min(rate for name, rate in figures["medians"].items() if name in ALONE)
    idle, busy = ("not measured" if figures[k] is None else f"{figures[k]:.1%}" for k in ("idle", "busy"))
    stages = ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in figures["stages"].items())
    write_results(
        f"gpu_throughput_{engine.path.name.rpartition('.')[0]}_{options.size}"
        + (f"_{options.detector}" if options.detector else ""),
        f"The GPU pipeline compared with its parts: {options.count:,} JPEGs of {options.size} (1 % damaged), "
        f"{engine.path.name}",
        [
            {"what": name, "images/s": rate, "of the ceiling": rate / ceiling}
            for name, rate in figures["medians"].items()
        ],
        [
            f"Medians of {len(figures['rounds']['whole pipeline'])} rounds; within a round the pipeline reaches "
            f"{figures['of the ceiling']:.3f} of the slowest of "
            f"{', '.join(n for n in figures['medians'] if n in ALONE)}; bottleneck: {figures['binding']}",
            f"By nvidia-smi: GPU idle {idle} when inference is the bottleneck (crops from the host); busy {busy} in "
            "the pipeline",
            f"Settings found by the tuner: {figures['settings']}; outcomes {figures['outcomes']}",
            f"Split by stage in the last round, images/s: {stages}",
        ],
        folder=options.out,
        details=figures,
    )


if __name__ == "__main__":
    main()
