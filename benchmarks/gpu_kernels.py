#!/usr/bin/env python3
"""Our kernels beside the memory they move, and the same steps inside the engine's own graph. Needs an NVIDIA GPU.

    python benchmarks/gpu_kernels.py
    python benchmarks/gpu_kernels.py --model random-512 --seconds 60 --out /tmp/kernels

Each kernel's time is set against the bytes that it has to read and write, at the speed of a device-to-device copy
measured in the same run. Then a whole batch is timed twice: through the plan that holds normalisation and L2, and
through a plan of the network alone with `preprocess.cu` before and `l2norm.cu` after it. Each figure is written down
before the next one is measured, so that a run that is stopped leaves what it has.
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

import material
import numpy as np
from numpy.typing import NDArray
from report import RESULTS, write_results

BATCH = 256
SIZE = 112
ROUNDS = 30
COPY_BYTES = 1 << 28
LEAST_COSINE = 0.99  # of the two ways through the same network, both in FP16
_COLUMNS = ("what", "ms", "GB/s", "of the copy's speed")
_STARTED = time.monotonic()

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """Something to time.

    Attributes:
        what: in the table.
        work: gives it to the stream.
        moved: bytes that it has to read and write; 0 where that is not the point.
    """

    what: str
    work: Work
    moved: float = 0


class Bench:
    """Buffers on the GPU, and a stream with something to do ahead of what is timed; owned by `with`.

    Attributes:
        driver, stream: see runtime.cuda.
        kept: what has to outlive the work, each before what hangs on it.
    """

    def __init__(self, driver: Any) -> None:
        from runtime.cuda.resources import DeviceBuffer, Event, Stream

        self.driver = driver
        self.kept: list[Any] = []
        self._stack = ExitStack()
        self.stream: Any = self._stack.enter_context(Stream(driver))
        self._marks: Any = [self._stack.enter_context(Event(driver, timing=True)) for _ in range(2)]
        self._copied: Any = [self._stack.enter_context(DeviceBuffer(driver, COPY_BYTES)) for _ in range(2)]

    def device(self, array: NDArray[Any]) -> Any:
        """A copy of an array on the GPU."""
        from runtime.cuda.resources import DeviceBuffer

        buffer = self._stack.enter_context(DeviceBuffer(self.driver, array.nbytes))
        self.stream.upload(array, buffer)
        self.stream.synchronize()
        return buffer

    def copy(self) -> None:
        """Copy COPY_BYTES from one place on the GPU to another."""
        self.stream.copy(self._copied[0].address, COPY_BYTES, self._copied[1])

    def seconds(self, work: Work) -> float:
        """Median time on the GPU of one call. A copy goes ahead: Python is slower than the small kernels."""
        times: list[float] = []
        start, stop = self._marks
        for turn in range(ROUNDS + 3):
            self.copy()
            self.stream.record(start)
            work()
            self.stream.record(stop)
            stop.synchronize()
            if turn >= 3:  # the first ones compile and warm up
                times.append(stop.seconds_since(start))
        return statistics.median(times)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stream.synchronize()
        while self.kept:
            self.kept.pop()
        self._stack.close()


def kernel_cases(bench: Bench) -> list[Case]:
    """The copy, and every kernel with usual sizes."""
    from runtime.cuda.kernels import IMAGE, Kernels, normalisation

    rng = np.random.default_rng(0)
    kernels, stream = Kernels(bench.driver), bench.stream
    table = bench.device(normalisation((127.5,) * 3, (127.5,) * 3))
    pixels = BATCH * SIZE * SIZE * 3
    crops = bench.device(np.zeros(pixels, np.float16))
    cases = [Case("copy on the device", bench.copy, 2 * COPY_BYTES)]
    for height, width in ((SIZE, SIZE), (400, 300)):
        photos = bench.device(rng.integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8))
        work = partial(
            kernels.preprocess, stream, photos, table, crops, count=BATCH, height=height, width=width, size=SIZE
        )
        what = f"preprocess.cu, {BATCH} of {width}x{height} to FP16"
        cases.append(Case(what, work, BATCH * height * width * 3 + 2 * pixels))
    images = np.zeros(BATCH, IMAGE)  # of the larger photographs
    images["pixels"] = photos.address + np.arange(BATCH, dtype=np.uint64) * np.uint64(height * width * 3)
    images["pitch"], images["height"], images["width"] = 3 * width, height, width
    d_images = bench.device(images)
    for scale in (1.4, 2.8):  # sampled as it is, and halved first
        turned = np.array([[scale, 0.1, 20], [-0.1, scale, 60]], np.float32)
        d_transforms = bench.device(np.tile(turned, (BATCH, 1, 1)))
        read = scale**2 * pixels  # a pixel of the crop covers so many of the photograph
        inputs = stream, d_images, d_transforms
        how = f"align.cu, {BATCH} at a scale of {scale}"
        cases += [
            Case(
                f"{how} to FP16",
                partial(kernels.align, *inputs, table, crops, count=BATCH, size=SIZE),
                read + 2 * pixels,
            ),
            Case(
                f"{how} to bytes", partial(kernels.align_bytes, *inputs, crops, count=BATCH, size=SIZE), read + pixels
            ),
        ]
    vectors = bench.device(rng.standard_normal((BATCH, 512)).astype(np.float16))
    units = bench.device(np.zeros((BATCH, 512), np.float32))
    l2norm = partial(kernels.l2norm, stream, vectors, units, count=BATCH, dimension=512)
    return [
        *cases,
        Case(f"l2norm.cu, {BATCH} x 512 from FP16", l2norm, BATCH * 512 * 6),
    ]


def plan_cases(bench: Bench, model: str, folder: Path, notes: list[str]) -> list[Case]:
    """A batch with the steps in the plan, and with the steps as kernels; both have to give the same vectors."""
    from runtime.cuda.kernels import Kernels, normalisation
    from runtime.engines.tensorrt.api import import_tensorrt, tensorrt_log
    from runtime.engines.tensorrt.backend import target_of
    from runtime.engines.tensorrt.build import CURRENT, compile_network
    from runtime.engines.weights import weights_for
    from runtime.graphs.graph import load_graph
    from runtime.graphs.half import to_half
    from runtime.graphs.tensors import INPUT, OUTPUT
    from runtime.modelspec import load_spec

    spec = load_spec(model)
    engine = material.build(model, folder, "tensorrt", "fp16")
    info = engine.info
    trt, stream, size = import_tensorrt(), bench.stream, spec.size
    graph = to_half(load_graph(weights_for(spec), spec)).SerializeToString()
    target = CURRENT if info.refused else target_of(None, info.backend_version)
    plan, _ = compile_network(trt, graph, [(BATCH, 3, size, size)] * 3, lambda network: None, target)

    rng = np.random.default_rng(0)
    photos = bench.device(rng.integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8))
    crops = bench.device(np.zeros((BATCH, 3, size, size), np.float16))
    vectors = bench.device(np.zeros((BATCH, spec.dimension), np.float16))
    units = bench.device(np.zeros((BATCH, spec.dimension), np.float32))
    table = bench.device(normalisation(spec.mean, spec.std))
    kernels = Kernels(bench.driver)
    log = tensorrt_log(trt)
    runtime = trt.Runtime(log.logger)
    bench.kept.append(runtime)

    def context_of(content: bytes) -> tuple[Any, list[str]]:
        loaded = runtime.deserialize_cuda_engine(content)
        if loaded is None:
            raise RuntimeError(f"a plan does not load{log.words()}")
        options = []
        if trt.__name__ == "tensorrt_rtx":
            options.append(loaded.create_runtime_config())
            # As the runner does: by default a batch size's own kernels come later, in the background.
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            options[0].dynamic_shapes_kernel_specialization_strategy = eager
        context = loaded.create_execution_context(*options)
        if context is None:
            raise RuntimeError(f"TensorRT created no execution context{log.words()}")
        bench.kept += [loaded, *options, context]
        return context, [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]

    def run(context: Any) -> None:
        if not context.execute_async_v3(stream.address):
            raise RuntimeError(f"TensorRT refused a batch{log.words()}")

    whole, _ = context_of(engine.content())
    whole.set_input_shape(INPUT, (BATCH, size, size, 3))
    whole.set_tensor_address(INPUT, photos.address)
    whole.set_tensor_address(OUTPUT, units.address)
    alone, (source, answer) = context_of(plan)
    alone.set_input_shape(source, (BATCH, 3, size, size))
    alone.set_tensor_address(source, crops.address)
    alone.set_tensor_address(answer, vectors.address)

    def in_kernels() -> None:
        kernels.preprocess(stream, photos, table, crops, count=BATCH, height=size, width=size, size=size)
        run(alone)
        kernels.l2norm(stream, vectors, units, count=BATCH, dimension=spec.dimension)

    def vectors_by(work: Work) -> NDArray[np.float32]:
        found = np.empty((BATCH, spec.dimension), np.float32)
        work()
        stream.download(units, found)
        stream.synchronize()
        return found

    lowest = float((vectors_by(partial(run, whole)) * vectors_by(in_kernels)).sum(axis=1).min())
    notes.append(f"Lowest cosine between the vectors of the two ways: {lowest:.5f}")
    if not lowest > LEAST_COSINE:
        raise RuntimeError(f"the two ways differ: a cosine of {lowest:.5f}; wanted: over {LEAST_COSINE}")
    return [
        Case(f"batch of {BATCH}, all steps in the plan", partial(run, whole)),
        Case(f"batch of {BATCH}, the network alone", partial(run, alone)),
        Case(f"batch of {BATCH}, preprocess.cu + network + l2norm.cu", in_kernels),
    ]


def measure_all(bench: Bench, options: argparse.Namespace) -> list[str]:
    """Measure every case, and write the results after each; returns what went wrong."""
    notes = [
        f"Medians of {ROUNDS} calls on one stream, timed by events, each behind a copy that keeps the GPU busy until "
        f"Python has given it the call",
        f"Model of the plans: {options.model}, FP16",
    ]
    rows: list[dict[str, object]] = []
    failed: list[str] = []

    def write(*, quiet: bool) -> None:
        title = "Our kernels beside the memory they move, and beside the same steps in the plan"
        write_results("gpu_kernels", title, rows, notes, folder=options.out, quiet=quiet)

    def measure(what: str, make: Callable[[], list[Case]]) -> None:
        if elapsed_s() > options.seconds:
            notes.append(f"{what}: left out: the {options.seconds:g} s of --seconds were over")
            return
        for case in make():
            if elapsed_s() > options.seconds:
                notes.append(f"{case.what}: left out: the {options.seconds:g} s of --seconds were over")
                continue
            took = bench.seconds(case.work)
            row: dict[str, object] = {**dict.fromkeys(_COLUMNS, ""), "what": case.what, "ms": 1e3 * took}
            if case.moved:
                row["GB/s"] = case.moved / took / 1e9
                row["of the copy's speed"] = row["GB/s"] / (rows[0] if rows else row)["GB/s"]  # type: ignore[operator]
            rows.append(row)
            write(quiet=True)

    write(quiet=True)  # so that nobody takes an older run's figures for this one's
    groups: dict[str, Callable[[], list[Case]]] = {
        "Our kernels": partial(kernel_cases, bench),
        "The plans": partial(plan_cases, bench, options.model, options.data, notes),
    }
    for what, make in groups.items():
        try:
            measure(what, make)
        except Exception as err:  # the others are measured all the same: a GPU is not at hand every day
            traceback.print_exc()
            failed.append(f"{what}: failed: {' '.join(str(err).split())}")
            notes.append(failed[-1])
            write(quiet=True)
    write(quiet=False)
    return failed


def elapsed_s() -> float:
    """Since this script began."""
    return time.monotonic() - _STARTED


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="random-512", help="of the plans; default: random-512, which needs no download"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin nothing later; default: no limit")
    parser.add_argument("--data", type=Path, default=Path("/tmp/facemill-bench"), help="folder for the engine")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    from runtime.cuda.device import find_gpu
    from runtime.cuda.driver import open_driver
    from runtime.errors import FacemillError

    if find_gpu() is None:
        print("gpu_kernels.py needs an NVIDIA GPU with a driver; this machine has none", file=sys.stderr)
        raise SystemExit(2)
    options.data.mkdir(parents=True, exist_ok=True)
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
