"""Slots and the TensorRT runner around them, with TensorRT's and CUDA's places taken by the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cuda_shim import ShimDriver
from engine_fixtures import info, save_cnn, spec
from numpy.typing import NDArray
from tensorrt_shim import shim

from runtime.engines.device_plan import detector_bytes, plan_device
from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.engines.prepare import prepare_graph
from runtime.engines.slot import usual_size
from runtime.engines.tensorrt_runner import TensorRTRunner
from runtime.errors import ConfigError, EngineError, OutOfMemoryError

INFO = info(backend="tensorrt", backend_version="tensorrt shim", profile=(1, 8, 20))
Open = Callable[..., TensorRTRunner]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cnn(tmp_path_factory.mktemp("engine") / "m.onnx")


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    return shim()


@pytest.fixture
def opened(weights: Path, tmp_path: Path, trt: ModuleType) -> Open:
    content = prepare_graph(weights, spec(), "fp32").SerializeToString()
    return lambda **options: TensorRTRunner(content, INFO, **{"driver": ShimDriver(tmp_path), "trt": trt, **options})


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return synthetic_crops(112, count=20)


@pytest.fixture(scope="module")
def expected(weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    return reference_embeddings(spec(), weights, crops)


@pytest.mark.parametrize("graphs", [False, True])
def test_every_batch_size_gives_the_rows_of_the_model(
    opened: Open, crops: NDArray[np.uint8], expected: NDArray[np.float64], graphs: bool
) -> None:
    with opened(graphs=graphs) as runner:
        for count in (20, 1, 8, 7, 8, 8, 13, 2):
            found = runner.infer(crops[:count])
            assert (found.shape, found.dtype) == ((count, 16), np.float32)
            np.testing.assert_allclose(found, expected[:count], atol=1e-5)


def test_few_sizes_are_run(opened: Open, crops: NDArray[np.uint8]) -> None:
    with opened() as runner:
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
    assert usual_size(count, profile) == size


def test_threads_share_the_slots(opened: Open, crops: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(20)
        for start in range(0, 20, 5):
            mine = order[start : start + 5]
            np.testing.assert_allclose(runner.infer(crops[mine]), expected[mine], atol=1e-5)

    with opened(slots=3) as runner, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))


def test_places_may_be_filled_in_pieces(opened: Open, crops: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    with opened() as runner, runner.slot() as slot:
        slot.fill(0, crops[:3])
        slot.fill(3, crops[3:9])
        slot.start(9)
        rows, seconds = slot.finish(9)
    np.testing.assert_allclose(rows, expected[:9], atol=1e-5)
    assert seconds > 0


def test_crops_made_on_the_device_are_embedded_and_sent_back(
    opened: Open, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with opened() as runner, runner.slot() as slot:
        slot.take(crops[4:].ctypes.data, (5, 112, 112, 3))  # the shim's device is the host
        slot.fill(5, crops[9:11])
        slot.fetch(5)
        slot.start(7)
        np.testing.assert_array_equal(slot.fetched(5), crops[4:9])
        rows, _ = slot.finish(7)
    np.testing.assert_allclose(rows, expected[4:11], atol=1e-5)


def test_a_refused_batch_is_an_error_in_tensorrts_words_and_the_slot_goes_on(
    opened: Open, crops: NDArray[np.uint8], expected: NDArray[np.float64]
) -> None:
    with opened(slots=1) as runner:
        runner._engine.refusals = {1: "myelin gave up", 2: "OutOfMemory: requested 12 bytes"}
        with pytest.raises(EngineError, match=r"batch of 8 of test-model: myelin gave up.*doctor") as failed:
            runner.infer(crops[:8])
        assert not isinstance(failed.value, OutOfMemoryError)
        with pytest.raises(OutOfMemoryError, match="OutOfMemory: requested"):
            runner.infer(crops[:8])
        np.testing.assert_allclose(runner.infer(crops[:8]), expected[:8], atol=1e-5)


def test_wrong_batches_are_refused(opened: Open) -> None:
    with opened() as runner, pytest.raises(ConfigError, match="takes 1 to 20 images a batch and was given 21"):
        runner.infer(np.zeros((21, 112, 112, 3), np.uint8))


def test_a_file_that_is_no_plan_is_refused_with_the_next_step(tmp_path: Path, trt: ModuleType) -> None:
    with pytest.raises(EngineError, match=r"cannot load the engine of test-model, built by tensorrt shim.*no engine"):
        TensorRTRunner(b"nothing", INFO, driver=ShimDriver(tmp_path), trt=trt)


def test_a_gpu_with_little_room_gets_fewer_slots(opened: Open) -> None:
    class Small(ShimDriver):
        def memory(self) -> tuple[int, int]:
            return 1 << 28, 1 << 30

    with pytest.raises(OutOfMemoryError, match=r"does not fit. GPU memory: .* --batch 1,32,64"):
        opened(driver=Small(Path()))


def test_the_plan_holds_what_fits() -> None:
    def plan(free: int, slots: int = 3) -> int:
        options = {"weights": 2 << 20, "context": 100 << 20, "decoder": 30 << 20, "detector": 20 << 20}
        return plan_device(INFO, slots=slots, **options, memory=(free, 8 << 30)).slots

    assert plan(8 << 30) == 3
    assert plan((256 + 2 + 2 * 151) << 20) == 2
    with pytest.raises(OutOfMemoryError, match="1 x "):
        plan(300 << 20)


def test_the_plan_says_who_gets_what() -> None:
    plan = plan_device(
        INFO, slots=2, weights=3_000_000, context=10**8, decoder=4 * 10**8, memory=(6 * 10**9, 8 * 10**9)
    )
    assert plan.needed == 3_000_000 + 2 * (10**8 + 20 * (3 * 112 * 112 + 64) + 4 * 10**8)
    assert str(plan) == (
        "GPU memory: 1,005 MB of 6,000 MB free (8,000 MB in all): weights 3 MB, and 2 x (execution 100 MB, crops and "
        "vectors 1 MB, JPEG decoder 400 MB)"
    )
    finder = info(detector="yunet", context_bytes=9_000_000, profile=(1, 2, 4), dimension=15)
    detector = detector_bytes(finder)
    assert detector == 9_000_000 + 4 * (3 * 1024**2 + 4 * 15 * (128**2 + 64**2 + 32**2))
    plan = plan_device(INFO, slots=1, weights=0, context=0, decoder=0, detector=detector, memory=(10**9, 10**9))
    assert plan.needed == detector + 20 * (3 * 112 * 112 + 64)
    assert str(plan).endswith("JPEG decoder 0 MB, detector 27 MB)")
