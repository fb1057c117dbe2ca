"""Slots and the TensorRT runner around them: one contract, on a GPU and on a CPU stand-in for TensorRT and CUDA."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.cuda.device import find_gpu
from runtime.cuda.driver import Driver, open_driver
from runtime.cuda.resources import DeviceBuffer, Stream
from runtime.engines.build import build_engine
from runtime.engines.engine import EngineInfo
from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.engines.tensorrt.api import import_tensorrt
from runtime.engines.tensorrt.memory import _RESERVED_BYTES, detector_bytes, plan_device
from runtime.engines.tensorrt.runner import TensorRTRunner
from runtime.engines.tensorrt.slot import padded_size
from runtime.errors import ConfigError, EngineError, MissingDependencyError, OutOfMemoryError
from runtime.graphs.prepare import prepare_graph
from runtime.pipeline.work import BatchLimit, Embed
from runtime.records import Crops
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import raises
from tests.support.model_files import info, save_cnn, spec
from tests.support.tensorrt_stand_in import Runtime, Strategy, tensorrt_module

INFO = info(backend="tensorrt", backend_version="tensorrt shim", profile=(1, 8, 20))


@dataclass(frozen=True)
class Target:
    """Where engines run.

    Attributes:
        engine, info: one that runs there.
        driver, trt: what a runner is given.
        tolerance: of its vectors; those of two crops are 0.14 apart.
        slack: bytes of device memory that may come and go by themselves.
        cache: of TensorRT-RTX's kernels.
    """

    engine: bytes
    info: EngineInfo
    driver: Driver
    trt: ModuleType
    tolerance: float
    slack: int = 0
    cache: Path | None = None

    def open(self, **options: Any) -> TensorRTRunner:
        own = {"driver": self.driver, "trt": self.trt, "cache": self.cache}
        return TensorRTRunner(self.engine, self.info, **{**own, **options})

    def used(self) -> int:
        """Bytes of device memory."""
        gc.collect()  # free what the frames of an exception held
        with self.driver:
            free, total = self.driver.memory()
        return total - free

    def check(self, rows: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
        np.testing.assert_allclose(rows, expected, atol=self.tolerance)


class DriverProxy:
    """A driver with some functions replaced."""

    def __init__(self, driver: Driver, **instead: Callable[..., Any]) -> None:
        self._driver = driver
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def __enter__(self) -> DriverProxy:
        self._driver.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._driver.__exit__(*error)


class RefusingContext:
    """An execution context that refuses some batches: number from 1 -> TensorRT's message."""

    def __init__(self, context: Any, logger: Any, refusals: dict[int, str]) -> None:
        self._context, self._logger, self._refusals = context, logger, refusals
        self._batches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def execute_async_v3(self, stream: int) -> bool:
        self._batches += 1
        if self._batches not in self._refusals:
            return bool(self._context.execute_async_v3(stream))
        self._logger.log(self._logger.Severity.ERROR, self._refusals[self._batches])
        return False


def refuse_batches(runner: TensorRTRunner, refusals: dict[int, str]) -> None:
    """Make the runner's next slot refuse batches."""
    with runner.slot() as slot:
        slot._context = RefusingContext(slot._context, runner._log.logger, refusals)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cnn(tmp_path_factory.mktemp("engine") / "m.onnx")


@pytest.fixture(scope="module")
def cpu_target(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """Use ONNX Runtime in place of TensorRT, and host memory in place of GPU memory."""
    content = prepare_graph(weights, spec(), "fp32").SerializeToString()
    return Target(content, INFO, ShimDriver(tmp_path_factory.mktemp("shim")), tensorrt_module(), tolerance=1e-5)


@pytest.fixture(scope="module")
def gpu_target(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """This machine's GPU, and an FP16 engine built for it by the installed TensorRT."""
    if find_gpu() is None:
        pytest.skip("no NVIDIA GPU with a driver")
    try:
        trt, driver = import_tensorrt(), open_driver()
    except MissingDependencyError as err:
        pytest.skip(str(err))
    folder = tmp_path_factory.mktemp("gpu")
    built = build_engine(spec(), weights, backend="tensorrt", batch=INFO.profile, output=folder)
    content, cache = built.engine.path.read_bytes(), folder / "kernels"
    return Target(content, built.engine.info, driver, trt, tolerance=0.01, slack=16 << 20, cache=cache)


@pytest.fixture(params=["cpu_target", pytest.param("gpu_target", marks=pytest.mark.gpu)])
def target(request: pytest.FixtureRequest) -> Target:
    fixture: Target = request.getfixturevalue(request.param)
    return fixture


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return synthetic_crops(112, count=20)


@pytest.fixture(scope="module")
def expected(weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    return reference_embeddings(spec(), weights, crops)


def test_every_batch_size_gives_the_models_rows(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open() as runner:
        for count in (20, 1, 8, 7, 8, 8, 13, 2):
            rows = runner.infer(crops[:count])
            assert (rows.shape, rows.dtype) == ((count, 16), np.float32)
            target.check(rows, expected[:count])


def test_batches_run_at_few_sizes(cpu_target: Target, crops: NDArray[np.uint8]) -> None:
    with cpu_target.open() as runner:
        for count in range(1, 21):
            runner.infer(crops[:count])
        assert {shape[0] for shape in runner._engine.shapes} == {1, 2, 4, 8, 16, 20}


@pytest.mark.parametrize(
    ("count", "profile", "size"),
    [
        (253, (1, 256, 512), 256),
        (128, (1, 256, 512), 128),
        (129, (1, 256, 512), 256),
        (100, (1, 100, 300), 100),
        (51, (1, 100, 300), 100),
        (50, (1, 100, 300), 64),
        (101, (1, 100, 300), 128),
        (257, (1, 100, 300), 300),
        (1, (2, 4, 8), 2),
        (1, (1, 1, 1), 1),
    ],
)
def test_the_size_that_a_batch_runs_at(count: int, profile: tuple[int, int, int], size: int) -> None:
    assert padded_size(count, profile) == size


def test_threads_share_the_slots(target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(20)
        for start in range(0, 20, 5):
            rows = order[start : start + 5]
            target.check(runner.infer(crops[rows]), expected[rows])

    with target.open(slots=3) as runner, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))


def test_concurrent_batches_keep_their_rows(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open(slots=3) as runner, ExitStack() as stack:
        flights = [(stack.enter_context(runner.slot()), part) for part in (slice(0, 7), slice(7, 12), slice(12, 20))]
        for slot, part in flights:
            slot.fill(0, crops[part])
            slot.start(len(crops[part]))
        for slot, part in reversed(flights):
            target.check(slot.finish(len(crops[part]))[0], expected[part])


def test_a_batch_may_be_filled_in_parts(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open() as runner, runner.slot() as slot:
        slot.fill(0, crops[:3])
        slot.fill(3, crops[3:9])
        slot.start(9)
        rows, seconds = slot.finish(9)
    target.check(rows, expected[:9])
    assert seconds > 0


def test_crops_made_on_the_device_are_embedded_and_sent_back(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    device_crops = crops[4:9]
    with (
        target.open() as runner,
        runner.slot() as slot,
        DeviceBuffer(target.driver, device_crops.nbytes) as device,
        Stream(target.driver) as stream,
    ):
        stream.upload(device_crops, device)
        stream.synchronize()
        slot.take(device.address, (5, 112, 112, 3))
        slot.fill(5, crops[9:11])
        slot.fetch(5)
        slot.start(7)
        np.testing.assert_array_equal(slot.fetched(5), device_crops)
        rows, _ = slot.finish(7)
    target.check(rows, expected[4:11])


def test_a_refused_batch_is_an_error_with_tensorrts_message_and_the_slot_remains_usable(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open(slots=1) as runner:
        refuse_batches(runner, {1: "myelin gave up", 2: "OutOfMemory: requested 12 bytes"})
        with raises(EngineError, 8, "test-model", "myelin gave up", "facemill doctor") as failed:
            runner.infer(crops[:8])
        assert not isinstance(failed.value, OutOfMemoryError)
        with raises(OutOfMemoryError, "OutOfMemory: requested 12 bytes"):
            runner.infer(crops[:8])
        target.check(runner.infer(crops[:8]), expected[:8])


def test_out_of_memory_halves_the_batch_and_loses_no_crop(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open(slots=1) as runner:
        refuse_batches(runner, {1: "out of memory", 2: "out of memory"})
        embed = Embed(runner, BatchLimit(16))
        embedded = embed(Crops(np.arange(20), images=crops))
        assert embed.limit.size == 4
    target.check(embedded.embeddings, expected)


def test_wrong_batches_are_refused(target: Target) -> None:
    with target.open() as runner, raises(ConfigError, 1, 20, 21):
        runner.infer(np.zeros((21, 112, 112, 3), np.uint8))


def test_a_file_that_is_no_plan_is_refused_with_the_next_step(target: Target) -> None:
    with raises(
        EngineError, target.info.model, target.info.backend_version, target.info.device, "facemill build-engine"
    ):
        TensorRTRunner(b"nothing", target.info, driver=target.driver, trt=target.trt)


@pytest.mark.slow
def test_the_device_memory_is_freed(target: Target, crops: NDArray[np.uint8]) -> None:
    with target.open(slots=8) as runner:
        runner.infer(crops)  # CUDA keeps some memory from its first use
    before = target.used()
    for _ in range(5):
        with target.open(slots=8) as runner:
            runner.infer(crops)
            assert target.used() > before
    assert target.used() <= before + target.slack


@pytest.mark.slow
def test_a_failed_open_frees_the_device_memory(target: Target, crops: NDArray[np.uint8]) -> None:
    allocations = iter(range(2 * 31 + 1))  # allocations that succeed, of two for each slot

    def allocate(nbytes: int) -> Any:
        if next(allocations, None) is None:
            raise OutOfMemoryError("the GPU is full")
        return target.driver.allocate(nbytes)

    with target.open() as runner:
        runner.infer(crops)
    before = target.used()
    with raises(OutOfMemoryError, "the GPU is full"):
        target.open(slots=32, driver=DriverProxy(target.driver, allocate=allocate))
    assert target.used() <= before + target.slack


def test_a_gpu_with_little_free_memory_gets_fewer_slots(
    target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with target.open() as runner:
        plan = runner.plan
    room = _RESERVED_BYTES + replace(plan, slots=2).needed
    with target.open(slots=3, driver=DriverProxy(target.driver, memory=lambda: (room, plan.total))) as runner:
        assert runner.plan.slots == 2
        target.check(runner.infer(crops), expected)
    less = _RESERVED_BYTES + replace(plan, slots=1).needed - 1
    with raises(OutOfMemoryError, "--batch 1,32,64"):
        target.open(driver=DriverProxy(target.driver, memory=lambda: (less, plan.total)))


def test_the_memory_plan_counts_weights_once(cpu_target: Target) -> None:
    """TensorRT loads the weights with the engine, before the plan is computed."""

    class Loading(Runtime):
        def deserialize_cuda_engine(self, content: bytes) -> Any:
            self.weights = cpu_target.driver.allocate(len(content))
            return super().deserialize_cuda_engine(content)

    trt = tensorrt_module()
    trt.__dict__["Runtime"] = Loading
    free, _ = cpu_target.driver.memory()
    with cpu_target.open(trt=trt) as runner:
        assert (runner.plan.free, runner.plan.weights) == (free, len(cpu_target.engine))


def test_tensorrt_rtx_compiles_the_kernels_of_a_batch_size_first(
    cpu_target: Target, crops: NDArray[np.uint8], expected: NDArray[np.float64], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with cpu_target.open(trt=tensorrt_module("tensorrt_rtx"), slots=2, cache=cache) as runner:
        cpu_target.check(runner.infer(crops), expected)
        strategies = runner._engine.strategies
    assert strategies == [Strategy.EAGER] * 2
    assert cache.read_bytes() == b"kernels"


def test_the_memory_plan_fits_the_free_memory() -> None:
    def plan(free: int, slots: int = 3) -> int:
        options = {"weights": 2 << 20, "context": 100 << 20, "decoder": 30 << 20, "detector": 20 << 20}
        return plan_device(INFO, slots=slots, **options, memory=(free, 8 << 30)).slots

    assert plan(8 << 30) == 3
    assert plan((256 + 2 + 2 * 151) << 20) == 2
    with raises(OutOfMemoryError):
        plan(300 << 20)


def test_the_memory_plan_lists_each_share() -> None:
    plan = plan_device(
        INFO, slots=2, weights=3_000_000, context=10**8, decoder=4 * 10**8, memory=(6 * 10**9, 8 * 10**9)
    )
    assert plan.needed == 3_000_000 + 2 * (10**8 + 20 * (3 * 112 * 112 + 64) + 4 * 10**8)
    assert str(plan) == (
        "GPU memory: 1,005 MB of 6,000 MB free (8,000 MB in all): weights 3 MB, and 2 x (execution 100 MB, crops and "
        "vectors 1 MB, JPEG decoder 400 MB)"
    )
    finder = info(task="detect", decode="yunet", context_bytes=9_000_000, profile=(1, 2, 4), dimension=15)
    detector = detector_bytes(finder)
    assert detector == 9_000_000 + 4 * (3 * 1024**2 + 4 * 15 * (128**2 + 64**2 + 32**2))
    plan = plan_device(INFO, slots=1, weights=0, context=0, decoder=0, detector=detector, memory=(10**9, 10**9))
    assert plan.needed == detector + 20 * (3 * 112 * 112 + 64)
    assert str(plan).endswith("JPEG decoder 0 MB, detector 27 MB)")
