#!/usr/bin/env python3
"""Measure our kernels against the memory bandwidth they need. Needs an NVIDIA GPU.

    python benchmarks/gpu_kernels.py
    python benchmarks/gpu_kernels.py --seconds 60 --out /tmp/kernels

The bytes that a kernel must read and write, divided by its time, are compared with the speed of a device-to-device
copy in the same run. Each figure is written before the next is measured, so that a stopped run keeps its figures.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import material  # noqa: F401  # puts the checkout on the import path
import numpy as np
from numpy.typing import NDArray
from report import RESULTS, write_results

BATCH = 256
SIZE = 112
ROUNDS = 30
COPY_BYTES = 1 << 28
_COLUMNS = ("what", "ms", "GB/s", "of the copy's speed")
_STARTED = time.monotonic()

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time.

    Attributes:
        label: label in the table.
        work: queues the work on the stream.
        moved_bytes: bytes that it must read and write; 0 if bandwidth does not matter.
    """

    label: str
    work: Work
    moved_bytes: float = 0


class Bench:
    """A stream, buffers on the GPU, and events that time work on the stream; use it in `with`.

    Attributes:
        driver: the open CUDA driver.
        stream: the stream that is timed.
    """

    def __init__(self, driver: Any) -> None:
        from runtime.cuda.resources import DeviceBuffer, Event, Stream

        self.driver = driver
        self._stack = ExitStack()
        self.stream: Any = self._stack.enter_context(Stream(driver))
        self._marks: Any = [self._stack.enter_context(Event(driver, timing=True)) for _ in range(2)]
        self._copied: Any = [self._stack.enter_context(DeviceBuffer(driver, COPY_BYTES)) for _ in range(2)]

    def device(self, array: NDArray[Any]) -> Any:
        """Copy an array to the GPU; returns its buffer."""
        from runtime.cuda.resources import DeviceBuffer

        buffer = self._stack.enter_context(DeviceBuffer(self.driver, array.nbytes))
        self.stream.upload(array, buffer)
        self.stream.synchronize()
        return buffer

    def copy(self) -> None:
        """Copy COPY_BYTES from one buffer on the GPU to another."""
        self.stream.copy(self._copied[0].address, COPY_BYTES, self._copied[1])

    def seconds(self, work: Work) -> float:
        """Median GPU time of one call. A copy runs first, because Python is slower than the small kernels."""
        times: list[float] = []
        start, stop = self._marks
        for round_number in range(ROUNDS + 3):
            self.copy()
            self.stream.record(start)
            work()
            self.stream.record(stop)
            stop.synchronize()
            if round_number >= 3:  # the first ones compile and warm up
                times.append(stop.seconds_since(start))
        return statistics.median(times)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stream.synchronize()
        self._stack.close()


def kernel_cases(bench: Bench) -> list[Case]:
    """Make the cases: the copy, and every kernel at usual sizes."""
    from runtime.cuda.kernels import IMAGE, Kernels

    rng = np.random.default_rng(0)
    kernels, stream = Kernels(bench.driver), bench.stream
    crop_bytes = BATCH * SIZE * SIZE * 3
    crops = bench.device(np.zeros(crop_bytes, np.uint8))
    cases = [Case("copy on the device", bench.copy, 2 * COPY_BYTES)]
    for height, width in ((SIZE, SIZE), (400, 300)):
        photos = bench.device(rng.integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8))
        images = np.zeros(BATCH, IMAGE)
        images["pixels"] = photos.address + np.arange(BATCH, dtype=np.uint64) * np.uint64(height * width * 3)
        images["pitch"], images["height"], images["width"] = 3 * width, height, width
        d_images = bench.device(images)
        work = partial(kernels.preprocess_bytes, stream, d_images, crops, first=0, count=BATCH, size=SIZE)
        cases.append(Case(f"preprocess.cu, {BATCH} of {width}x{height}", work, BATCH * height * width * 3 + crop_bytes))
    for scale in (1.4, 2.8):  # of the larger photos: sampled directly, and halved first
        transform = np.array([[scale, 0.1, 20], [-0.1, scale, 60]], np.float32)
        d_transforms = bench.device(np.tile(transform, (BATCH, 1, 1)))
        work = partial(kernels.align_bytes, stream, d_images, d_transforms, crops, count=BATCH, size=SIZE)
        read = scale**2 * crop_bytes  # pixels of the photo covered by the crop
        cases.append(Case(f"align.cu, {BATCH} at a scale of {scale}", work, read + crop_bytes))
    return cases


def measure_all(bench: Bench, options: argparse.Namespace) -> list[str]:
    """Measure every case and write the results after each; returns the failures."""
    notes = [
        f"Medians of {ROUNDS} calls on one stream, timed by events; a copy before each keeps the GPU busy until Python "
        f"has queued the call",
    ]
    rows: list[dict[str, object]] = []
    failed: list[str] = []

    def write(*, quiet: bool) -> None:
        title = "Our kernels compared with the speed of a device-to-device copy"
        write_results("gpu_kernels", title, rows, notes, folder=options.out, quiet=quiet)

    def measure(label: str, make: Callable[[], list[Case]]) -> None:
        if elapsed_s() > options.seconds:
            notes.append(f"{label}: left out: the {options.seconds:g} s of --seconds were over")
            return
        for case in make():
            if elapsed_s() > options.seconds:
                notes.append(f"{case.label}: left out: the {options.seconds:g} s of --seconds were over")
                continue
            took = bench.seconds(case.work)
            row: dict[str, object] = {**dict.fromkeys(_COLUMNS, ""), "what": case.label, "ms": 1e3 * took}
            if case.moved_bytes:
                row["GB/s"] = case.moved_bytes / took / 1e9
                row["of the copy's speed"] = row["GB/s"] / (rows[0] if rows else row)["GB/s"]  # type: ignore[operator]
            rows.append(row)
            write(quiet=True)

    write(quiet=True)  # overwrites the figures of an older run
    try:
        measure("Our kernels", partial(kernel_cases, bench))
    except Exception as err:  # the figures measured so far stay written
        traceback.print_exc()
        failed.append(f"Our kernels: failed: {' '.join(str(err).split())}")
        notes.append(failed[-1])
        write(quiet=True)
    write(quiet=False)
    return failed


def elapsed_s() -> float:
    """Seconds since this script started."""
    return time.monotonic() - _STARTED


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="start no measurement after this many seconds; default: no limit",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results; default: benchmarks/results")
    options = parser.parse_args()
    from runtime.cuda.device import find_gpu
    from runtime.cuda.driver import open_driver
    from runtime.errors import FacemillError

    if find_gpu() is None:
        print("gpu_kernels.py needs an NVIDIA GPU with a driver; this machine has none", file=sys.stderr)
        raise SystemExit(2)
    try:
        driver = open_driver()
    except FacemillError as err:
        print(f"gpu_kernels.py cannot use the GPU: {err}", file=sys.stderr)
        raise SystemExit(2) from err
    with driver, Bench(driver) as bench:
        failed = measure_all(bench, options)
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()
