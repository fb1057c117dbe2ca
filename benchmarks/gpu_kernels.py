#!/usr/bin/env python3
"""Our kernels beside the memory they move, and the same steps inside the engine's own graph.

    python benchmarks/gpu_kernels.py --model random-512

Each kernel's time is set against the bytes that it has to read and write, at the speed of a device-to-device copy
measured in the same run. Then a whole batch is timed twice: through the plan that holds normalisation and L2, and
through a plan of the network alone with `preprocess.cu` before and `l2norm.cu` after it.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import material
import numpy as np
from report import RESULTS, write_results

BATCH = 256
SIZE = 112
ROUNDS = 30


def seconds(driver: Any, stream: Any, work: Callable[[], None], rounds: int = ROUNDS) -> float:
    """Median time on the GPU of one call of `work`, which gives something to the stream."""
    from runtime.cuda.resources import Event

    times = []
    for turn in range(rounds + 3):
        with Event(driver, timing=True) as start, Event(driver, timing=True) as stop:
            stream.record(start)
            work()
            stream.record(stop)
            stop.synchronize()
            if turn >= 3:  # the first ones compile and warm up
                times.append(stop.seconds_since(start))
    return statistics.median(times)


def time_kernels(driver: Any, stream: Any, stack: ExitStack) -> list[dict[str, object]]:
    """One row a kernel."""
    from runtime.cuda.kernels import IMAGE, Kernels, normalisation
    from runtime.cuda.resources import DeviceBuffer

    rng = np.random.default_rng(0)
    kernels = Kernels(driver)

    def device(array: Any) -> Any:
        buffer = stack.enter_context(DeviceBuffer(driver, array.nbytes))
        stream.upload(array, buffer)
        stream.synchronize()
        return buffer

    large = rng.integers(0, 256, 1 << 28, dtype=np.uint8)
    source, target = device(large), device(large)
    copy_bytes = 2 * large.nbytes

    cuda = importlib.import_module("cupy").cuda.runtime

    def copy() -> None:
        kind = cuda.memcpyDeviceToDevice
        cuda.memcpyAsync(target.address, source.address, large.nbytes, kind, stream.address)

    rate = copy_bytes / seconds(driver, stream, copy)
    rows: list[dict[str, object]] = [{"what": "copy on the device", "ms": 1e3 * copy_bytes / rate, "GB/s": rate / 1e9}]

    def note(what: str, moved: int, work: Callable[[], None]) -> None:
        took = seconds(driver, stream, work)
        rows.append(
            {"what": what, "ms": 1e3 * took, "GB/s": moved / took / 1e9, "of the copy's speed": moved / took / rate}
        )

    table = device(normalisation((127.5,) * 3, (127.5,) * 3))
    crops = device(np.zeros(BATCH * 3 * SIZE * SIZE, np.float16))
    moved = BATCH * 3 * SIZE * SIZE * 2
    for height, width in ((SIZE, SIZE), (400, 300)):
        photos = device(rng.integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8))
        note(
            f"preprocess.cu, {BATCH} of {width}x{height} to FP16",
            moved + BATCH * height * width * 3,
            lambda photos=photos, height=height, width=width: kernels.preprocess(
                stream, photos, table, crops, count=BATCH, height=height, width=width, size=SIZE
            ),
        )
    height, width = 400, 300
    images = np.zeros(BATCH, IMAGE)
    images["pixels"] = photos.address + np.arange(BATCH, dtype=np.uint64) * np.uint64(height * width * 3)
    images["pitch"], images["height"], images["width"] = 3 * width, height, width
    transforms = np.tile(np.array([[2.0, 0.3, 20], [-0.3, 2.0, 60]], np.float32), (BATCH, 1, 1))
    d_images, d_transforms = device(images), device(transforms)
    note(
        f"align.cu, {BATCH} of {width}x{height} to FP16",
        moved + BATCH * 3 * SIZE * SIZE,  # about one pixel read for each written, at this scale
        lambda: kernels.align(stream, d_images, d_transforms, table, crops, count=BATCH, size=SIZE),
    )
    note(
        f"align.cu, {BATCH} of {width}x{height} to bytes",
        2 * BATCH * 3 * SIZE * SIZE,
        lambda: kernels.align_bytes(stream, d_images, d_transforms, crops, count=BATCH, size=SIZE),
    )
    vectors = device(rng.standard_normal((BATCH, 512)).astype(np.float16))
    units = device(np.zeros((BATCH, 512), np.float32))
    note(
        f"l2norm.cu, {BATCH} x 512 from FP16",
        BATCH * 512 * 6,
        lambda: kernels.l2norm(stream, vectors, units, count=BATCH, dimension=512),
    )
    return rows


def time_steps(driver: Any, stream: Any, stack: ExitStack, model: str, folder: Path) -> list[dict[str, object]]:
    """A batch with the steps in the plan, and with the steps as kernels."""
    from runtime.cuda.kernels import Kernels, normalisation
    from runtime.cuda.resources import DeviceBuffer
    from runtime.engines.build_tensorrt import compile_network
    from runtime.engines.graph import load_graph
    from runtime.engines.half import to_half
    from runtime.engines.inputs import INPUT, OUTPUT
    from runtime.engines.tensorrt_api import import_tensorrt, named_target, tensorrt_log
    from runtime.engines.weights import weights_for
    from runtime.modelspec import load_spec

    spec = load_spec(model)
    engine = material.build(model, folder, "tensorrt", "fp16")
    trt = import_tensorrt()
    log = tensorrt_log(trt)
    runtime = trt.Runtime(log.logger)

    def load(plan: bytes) -> tuple[Any, list[str]]:
        loaded = runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            raise RuntimeError(f"a plan does not load{log.words()}")
        return loaded, [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]

    rng = np.random.default_rng(0)
    photos = stack.enter_context(DeviceBuffer(driver, BATCH * SIZE * SIZE * 3))
    stream.upload(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8), photos)
    crops = stack.enter_context(DeviceBuffer(driver, BATCH * SIZE * SIZE * 3 * 2))
    vectors = stack.enter_context(DeviceBuffer(driver, BATCH * spec.dimension * 4))
    units = stack.enter_context(DeviceBuffer(driver, BATCH * spec.dimension * 4))
    table = stack.enter_context(DeviceBuffer(driver, 24))
    stream.upload(normalisation(spec.mean, spec.std), table)
    kernels = Kernels(driver)

    whole, _ = load(engine.read_bytes())
    context = whole.create_execution_context()
    context.set_input_shape(INPUT, (BATCH, SIZE, SIZE, 3))
    context.set_tensor_address(INPUT, photos.address)
    context.set_tensor_address(OUTPUT, units.address)

    graph = to_half(load_graph(weights_for(spec), spec))
    target = named_target(trt, driver.device.compute_capability)
    shapes = [(BATCH, 3, SIZE, SIZE)] * 3
    plan, _ = compile_network(trt, graph.SerializeToString(), shapes, lambda network: None, target)
    bare, names = load(plan)
    alone = bare.create_execution_context()
    alone.set_input_shape(names[0], (BATCH, 3, SIZE, SIZE))
    alone.set_tensor_address(names[0], crops.address)
    alone.set_tensor_address(names[1], vectors.address)

    def in_kernels() -> None:
        kernels.preprocess(stream, photos, table, crops, count=BATCH, height=SIZE, width=SIZE, size=SIZE)
        alone.execute_async_v3(stream.address)
        kernels.l2norm(stream, vectors, units, count=BATCH, dimension=spec.dimension)

    in_plan = seconds(driver, stream, lambda: context.execute_async_v3(stream.address))
    network = seconds(driver, stream, lambda: alone.execute_async_v3(stream.address))
    kernel = seconds(driver, stream, in_kernels)
    return [
        {"what": f"batch of {BATCH}, all steps in the plan", "ms": 1e3 * in_plan},
        {"what": f"batch of {BATCH}, the network alone", "ms": 1e3 * network},
        {"what": f"batch of {BATCH}, preprocess.cu + network + l2norm.cu", "ms": 1e3 * kernel},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-512", help="default: random-512")
    parser.add_argument("--data", type=Path, default=Path("/tmp/facemill-bench"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    from runtime.cuda.driver import open_driver
    from runtime.cuda.resources import Stream
    from runtime.engines.device import find_gpu

    if find_gpu() is None:
        print("gpu_kernels.py needs an NVIDIA GPU with a driver; this machine has none", file=sys.stderr)
        raise SystemExit(2)
    with open_driver() as driver, ExitStack() as stack, Stream(driver) as stream:
        rows = time_kernels(driver, stream, stack)
        rows += time_steps(driver, stream, stack, options.model, options.data)
    columns = ("what", "ms", "GB/s", "of the copy's speed")
    write_results(
        "gpu_kernels",
        "Our kernels beside the memory they move, and beside the same steps in the plan",
        [{column: row.get(column, "") for column in columns} for row in rows],
        [f"Medians of {ROUNDS} calls on one stream, timed by events", f"Model of the plans: {options.model}, FP16"],
        folder=options.out,
    )


if __name__ == "__main__":
    main()
