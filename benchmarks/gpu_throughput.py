#!/usr/bin/env python3
"""The pipeline on a GPU beside decoding alone and the engine alone, taking turns in one process.

    python benchmarks/gpu_throughput.py --engine engines/MODEL.plan --size 112x112 --count 20000 --repeat 5
    python benchmarks/gpu_throughput.py --model random-512 --size 300x400
    python benchmarks/gpu_throughput.py --model random-512 --size 300x400 --detector yunet

Decoding alone: as many decoders as the pipeline has slots, whose crops go nowhere. The engine alone: as many slots,
whose crops are there already. Crops from the host: inference binds, with copies both ways. With a detector: see
gpu_faces.py. Without a GPU the same is measured on the CPU (`--backend cpu`), to try the command.
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
from threads import seconds_of

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

ALONE = ("decode alone", "detect alone", "engine alone")


class Nowhere:
    """Crops that are decoded and dropped; without a stream each run of DALI is waited for."""

    stream = None

    def put_run(self, place: int, crops: Any) -> None:
        pass

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        pass


def in_threads(count: int, work: Callable[[int], int], total: int) -> float:
    """Photographs a second of `count` threads that call `work(thread)` until `total` are done."""
    size = work(0)  # warm-up
    for number in range(1, count):
        work(number)
    items = range(0, total, size)
    return len(items) * size / seconds_of(count, lambda number, _: work(number), items)


def batches_of(files: Sequence[bytes], size: int) -> Callable[[], list[bytes]]:
    """Another batch of `size` files at every call."""
    starts = itertools.count(0, size)

    def take() -> list[bytes]:
        start = next(starts)
        return [files[i % len(files)] for i in range(start, start + size)]

    return take


def decode_alone(files: Sequence[bytes], info: Any, settings: Any, device: str, total: int) -> float:
    """Photographs a second through the decoders of all slots, with nothing behind them."""
    from runtime.images.dali_crops import DaliDecoder
    from runtime.images.jpeg_runs import DaliOptions

    take = batches_of(files, settings.batch_size)
    threads = math.ceil(settings.decoders / settings.streams)
    options = DaliOptions(device=device, batch_size=settings.batch_size, threads=threads)
    with ExitStack() as stack:
        decoders = [
            stack.enter_context(DaliDecoder(info.size, info.channel_order, options)) for _ in range(settings.streams)
        ]

        def work(number: int) -> int:
            decoders[number].decode(take(), Nowhere())
            return settings.batch_size

        return in_threads(settings.streams, work, total)


def decode_opencv(files: Sequence[bytes], info: Any, settings: Any, total: int) -> float:
    """Photographs a second through the CPU's decoder on all cores."""
    import cv2

    from runtime.images.decode import ImageError, decode_image

    cv2.setNumThreads(1)
    take = batches_of(files, 64)

    def work(_: int) -> int:
        for data in take():
            try:
                decode_image(data, size=info.size, channel_order=info.channel_order)
            except ImageError:
                continue
        return 64

    return in_threads(len(os.sched_getaffinity(0)), work, total)


def engine_alone(runner: Any, images: NDArray[np.uint8], settings: Any, total: int) -> float:
    """Photographs a second of slots whose crops are on the device already."""
    count = settings.batch_size
    if not hasattr(runner, "slot"):
        return in_threads(settings.streams, lambda _: len(runner.infer(images[:count])), total)
    with ExitStack() as stack:
        slots = [stack.enter_context(runner.slot()) for _ in range(min(settings.streams, runner.plan.slots))]
        for slot in slots:
            slot.fill(0, images[:count])

        def work(number: int) -> int:
            with runner.driver:
                slots[number].start(count)
                slots[number].finish(count)
            return count

        return in_threads(len(slots), work, total)


def through_runner(runner: Any, images: NDArray[np.uint8], settings: Any, total: int) -> float:
    """Photographs a second of crops that come from the host's memory and of vectors that go back to it."""
    return in_threads(settings.streams, lambda _: len(runner.infer(images[: settings.batch_size])), total)


class Utilisation:
    """The part of the time in which the GPU runs anything, by NVIDIA's own count; used in `with`.

    Attributes:
        busy: 0 to 1, without the first second (each count is of up to that long before) and the last; None: nvidia-smi
            has not said.
    """

    def __init__(self) -> None:
        self.busy: float | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Utilisation:
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
        words, _ = self._process.communicate()
        numbers = [float(word) / 100 for word in words.split() if word.isdecimal()]
        steady = numbers[10:-10]  # ten a second
        if steady:
            self.busy = statistics.fmean(steady)


def settings_of(request: Any, info: Any) -> Any:
    """What the pipeline's tuner finds for these photographs."""
    from dataclasses import replace

    from runtime.pipeline.run import process
    from runtime.pipeline.settings import default_settings
    from runtime.pipeline.tuning import preparation_key, recall_settings

    process(replace(request, limit=2048))
    request.output.unlink()
    before = preparation_key(replace(request, decoder="opencv" if info.backend == "cpu" else "dali"))
    return recall_settings(info, before) or default_settings(info)


def write_list(photos: Path, folder: Path, repeat: int) -> tuple[Path, list[Path]]:
    """A list file of the JPEGs of a folder, so many times over; and they."""
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
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """All rates, round by round.

    Args:
        engine: to be measured.
        photos: a folder of `count` JPEGs, damaged ones among them.
        count: photographs.
        repeat: how often the pipeline goes through them in one run.
        rounds: of all measurements in turn, at most.
        folder: for lists and outputs.
        seconds: no round is begun that would probably end later than this, but for the first.
        keep: is given what is known after every round.
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
    settings = settings_of(request, info)
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
    for turn in range(1, rounds + 1):
        note("decode alone", decode_alone(files, info, settings, "mixed" if on_gpu else "cpu", total))
        with (
            TensorRTRunner(engine.content(), engine.info, slots=settings.streams)
            if on_gpu
            else open_runner(engine, threads=1)
        ) as runner:
            note("engine alone", engine_alone(runner, crops, settings, total))
            if on_gpu and turn == 1:
                enough = math.ceil(5 * rates["engine alone"][0])  # five seconds
                with Utilisation() as used:
                    note("crops from the host", through_runner(runner, crops, settings, enough))
                idle = None if used.busy is None else 1 - used.busy
        with Utilisation() as used:
            done = process(request)
        request.output.unlink()
        note("whole pipeline", done.images_per_s)
        if turn == 1:
            note("OpenCV on all cores", decode_opencv(files, info, settings, total))
        found = {**summary(rates, settings), "outcomes": done.outcomes, "stages": done.stages}
        found |= {"idle": idle, "busy": used.busy if on_gpu else None}
        keep(found)
        if (time.perf_counter() - began) * (turn + 1) / turn > seconds:
            break
    return found


def summary(rates: dict[str, list[float]], settings: Any) -> dict[str, Any]:
    """What some rounds say: the whole pipeline beside the slowest of its parts in the same round."""
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
    parser.add_argument("--engine", type=Path, help="an engine file; default: one built from --model")
    parser.add_argument("--model", default="random-512", help="default: random-512")
    parser.add_argument("--detector", help="a model that finds the faces, such as yunet; default: none are looked for")
    parser.add_argument("--backend", default="tensorrt", choices=["tensorrt", "cpu"])
    parser.add_argument("--size", default="112x112", help="of the photographs; default: 112x112")
    parser.add_argument("--count", type=int, default=20_000, help="photographs; default: 20000")
    parser.add_argument("--repeat", type=int, default=5, help="how often one run goes through them; default: 5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    from runtime.engines.engine import read_engine

    width, _, height = options.size.partition("x")
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.photographs(options.data, options.count, (int(width), int(height)), corrupt=0.01)
    engine = (
        read_engine(options.engine) if options.engine else material.build(options.model, options.data, options.backend)
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FACEMILL_CACHE", folder)
        how = {"count": options.count, "repeat": options.repeat, "rounds": options.rounds, "folder": Path(folder)}
        if options.detector:
            from gpu_faces import measure_faces

            found = measure_faces(
                engine, material.build(options.detector, options.data, options.backend), photos, **how
            )
        else:
            found = measure(engine, photos, **how)
    ceiling = min(rate for name, rate in found["medians"].items() if name in ALONE)
    idle, busy = ("not measured" if found[k] is None else f"{found[k]:.1%}" for k in ("idle", "busy"))
    stages = ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in found["stages"].items())
    write_results(
        f"gpu_throughput_{engine.path.name.rpartition('.')[0]}_{options.size}"
        + (f"_{options.detector}" if options.detector else ""),
        f"The GPU pipeline beside its parts: {options.count:,} JPEGs of {options.size} (1 % damaged), "
        f"{engine.path.name}",
        [{"what": name, "images/s": rate, "of the ceiling": rate / ceiling} for name, rate in found["medians"].items()],
        [
            f"Medians of {len(found['rounds']['whole pipeline'])} rounds in turn; the pipeline within a round reaches "
            f"{found['of the ceiling']:.3f} of the smallest of {', '.join(n for n in found['medians'] if n in ALONE)}; "
            f"binding: {found['binding']}",
            f"By nvidia-smi: GPU idle when inference binds (crops from the host) {idle}; busy in the pipeline {busy}",
            f"Settings found by the tuner: {found['settings']}; outcomes {found['outcomes']}",
            f"Split by stage in the last round, images/s: {stages}",
        ],
        folder=options.out,
        details=found,
    )


if __name__ == "__main__":
    main()
