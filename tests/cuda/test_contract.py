"""The contract of every CUDA driver, and its kernels compared with their NumPy definitions.

The driver `shim` runs the kernels on the CPU through g++; `cupy` and `pycuda` need a GPU.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.cuda.device import find_gpu
from runtime.cuda.driver import Driver, open_driver
from runtime.cuda.kernels import IMAGE, Kernels
from runtime.cuda.resources import DeviceBuffer, Event, PinnedBuffer, Stream
from runtime.errors import ConfigError, EngineError
from runtime.faces.align import align_crops, inverse_transforms, similarity, template
from tests.oracles.preprocess import preprocess_bytes
from tests.oracles.warp import warp_bytes, warp_levels
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import raises

GPU = pytest.mark.gpu


@pytest.fixture(scope="module", params=["shim", pytest.param("cupy", marks=GPU), pytest.param("pycuda", marks=GPU)])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    if request.param == "shim":
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed: the kernels cannot be compiled for the CPU")
        opened: Driver = ShimDriver(tmp_path_factory.mktemp("shim"))
    else:
        if find_gpu() is None:
            pytest.skip("no NVIDIA GPU with a driver")
        pytest.importorskip(request.param, reason=f"{request.param} is not installed", exc_type=ImportError)
        opened = open_driver(request.param)
    with opened:
        yield opened


@pytest.fixture(scope="module")
def kernels(driver: Driver) -> Kernels:
    return Kernels(driver)


@pytest.fixture
def stream(driver: Driver) -> Iterator[Stream]:
    with Stream(driver) as stream:
        yield stream


@pytest.fixture
def to_device(driver: Driver, stream: Stream) -> Iterator[Callable[[NDArray[Any]], DeviceBuffer]]:
    buffers: list[Any] = []

    def copy(array: NDArray[Any]) -> DeviceBuffer:
        buffer = DeviceBuffer(driver, array.nbytes)
        stream.upload(array, buffer)
        buffers.append((array, buffer))
        return buffer

    yield copy
    stream.synchronize()


def photo(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Make noise in a frame of the brightest pixels, so that a wrong border read is visible."""
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[[0, -1]] = 255
    image[:, [0, -1]] = 255
    return image


def test_free_and_total_memory_are_reported(driver: Driver) -> None:
    free, total = driver.memory()
    assert 0 < free <= total
    assert driver.device.compute_capability.startswith("SM")


def test_bytes_survive_a_round_trip(driver: Driver, stream: Stream) -> None:
    sent = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)
    with PinnedBuffer(driver, 100_010) as pinned, DeviceBuffer(driver, 100_010) as device, Event(driver) as event:
        host = pinned.view((100_003,), np.uint8)
        host[:] = sent
        stream.upload(host, device, offset=7)
        stream.synchronize()
        back = pinned.view((3,), np.uint8)
        back[:] = 0
        stream.download(device, back, offset=8)
        stream.record(event)
        event.synchronize()
        np.testing.assert_array_equal(back, sent[1:4])


def test_bytes_are_copied_on_the_device(driver: Driver, stream: Stream) -> None:
    sent, back = np.arange(100, dtype=np.uint8), np.zeros(100, np.uint8)
    with DeviceBuffer(driver, 100) as source, DeviceBuffer(driver, 100) as target:
        stream.upload(sent, source)
        stream.upload(back, target)
        stream.copy(source.address + 10, 30, target, 5)
        stream.copy(source.address, 0, target)
        stream.download(target, back)
        stream.synchronize()
        with raises(ConfigError, 96, 5):
            stream.copy(source.address, 96, target, 5)
    np.testing.assert_array_equal(back, [*[0] * 5, *range(10, 40), *[0] * 65])


def test_events_measure_the_time_between_them(driver: Driver, stream: Stream) -> None:
    host = np.zeros(1 << 24, np.uint8)
    timed = functools.partial(Event, driver, timing=True)
    with DeviceBuffer(driver, host.nbytes) as device, timed() as start, timed() as stop:
        stream.record(start)
        stream.upload(host, device)
        stream.record(stop)
        stop.synchronize()
        assert 0 < stop.seconds_since(start) < 60


def test_a_device_buffer_is_freed_on_exit(driver: Driver) -> None:
    with DeviceBuffer(driver, 1000) as device, DeviceBuffer(driver, 0) as empty:
        assert device.nbytes == 1000
        assert device.address
        assert (empty.nbytes, empty.address) == (0, 0)
    assert (device.nbytes, device.address) == (0, 0)


def test_copies_outside_a_buffer_are_refused(driver: Driver, stream: Stream) -> None:
    with DeviceBuffer(driver, 16) as device, PinnedBuffer(driver, 16) as pinned:
        with raises(ConfigError, 20, 0, 16):
            stream.upload(np.zeros(5, np.float32), device)
        with raises(ConfigError, 4, 13):
            stream.download(device, np.zeros(1, np.float32), offset=13)
        with raises(ConfigError, "C-contiguous"):
            stream.upload(np.zeros((2, 2), np.float32)[:, :1], device)
        with raises(ConfigError, 20, 16):
            pinned.view((5,), np.float32)
        stream.upload(np.zeros(0, np.float32), device)


def test_a_second_thread_uses_the_device(driver: Driver) -> None:
    results = []

    def work() -> None:
        with driver, Stream(driver) as stream, DeviceBuffer(driver, 4) as device:
            back = np.zeros(1, np.int32)
            stream.upload(np.array([42], np.int32), device)
            stream.download(device, back)
            stream.synchronize()
            results.append(int(back[0]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [42]


@pytest.mark.gpu
def test_a_failed_allocation_is_an_error(driver: Driver) -> None:
    if driver.name == "shim":
        pytest.skip("host memory is only promised, not given")
    with raises(EngineError):
        DeviceBuffer(driver, 1 << 50)


def warps(size: int, to_device: Callable[[NDArray[Any]], DeviceBuffer]) -> tuple[list[Any], Any, Any]:
    """Make awkward photos, the table of their device addresses, and transforms."""
    rng = np.random.default_rng(1)
    shapes = ((112, 112), (97, 131), (1, 1), (40, 33), (2, 3), (64, 64), (611, 530), (300, 401))
    images = [photo(rng, h, w) for h, w in shapes]
    transforms = np.zeros((len(images), 2, 3), np.float32)
    for transform, image, angle in zip(transforms, images, (0, 0.3, 0, -2.5, 1.2, 0, 0.4, -3), strict=True):
        scale = 0.7 * image.shape[0] / size  # corners fall outside
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        transform[:] = [[cosine, -sine, image.shape[1] / 3], [sine, cosine, -1.5]]
    transforms[0] = [[1, 0, 0], [0, 1, 0]]
    transforms[5] = np.nan
    table = np.zeros(len(images), IMAGE)
    for row, image, gap in zip(table, images, (0, 5, 61, 1, 0, 0, 7, 0), strict=True):
        padded = np.full((image.shape[0], 3 * image.shape[1] + gap), 77, np.uint8)
        padded[:, : 3 * image.shape[1]] = image.reshape(len(image), -1)
        row["pixels"], row["pitch"] = to_device(padded).address, padded.shape[1]
        row["height"], row["width"] = image.shape[:2]
    return images, table, transforms


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [112, 17])
def test_align_bytes(
    kernels: Kernels, stream: Stream, to_device: Callable[[NDArray[Any]], DeviceBuffer], size: int, reverse: bool
) -> None:
    images, table, transforms = warps(size, to_device)
    table[1], images[1], transforms[1] = table[0], images[0], [[0.5, 0, 3], [0, 0.25, 20]]  # exact, including halves
    output = np.full((len(images) + 1, size, size, 3), 9, np.uint8)
    crops = to_device(output)
    kernels.align_bytes(
        stream, to_device(table), to_device(transforms), crops, count=len(images), size=size, reverse=reverse
    )
    stream.download(crops, output)
    stream.synchronize()
    finite = np.nan_to_num(transforms, nan=-1e6)  # a NaN counts as outside, like a distant point
    expected = warp_bytes(images, finite, size=size, reverse=reverse)
    difference = np.abs(output[:-1].astype(int) - expected)
    assert not difference[:2].any()
    assert difference.max() <= 1  # FP32 coordinates near a half
    assert (difference > 0).mean() < 1e-3
    assert (output[-1] == 9).all()


def test_preprocess_bytes(kernels: Kernels, stream: Stream, to_device: Callable[[NDArray[Any]], DeviceBuffer]) -> None:
    rng, size = np.random.default_rng(4), 28
    shapes = ((28, 28), (57, 71), (224, 224), (225, 301), (447, 900), (1, 1), (20, 200), (29, 28))
    images = [photo(rng, *shape) for shape in shapes]
    table = np.zeros(len(images), IMAGE)
    for row, image, gap in zip(table, images, (0, 5, 0, 61, 1, 0, 3, 0), strict=True):
        padded = np.full((image.shape[0], 3 * image.shape[1] + gap), 77, np.uint8)
        padded[:, : 3 * image.shape[1]] = image.reshape(len(image), -1)
        row["pixels"], row["pitch"] = to_device(padded).address, padded.shape[1]
        row["height"], row["width"] = image.shape[:2]
    output = np.full((len(images) + 1, size, size, 3), 9, np.uint8)
    crops, on_device = to_device(output), to_device(table)
    for first, count in ((3, 5), (0, 2), (2, 0)):
        kernels.preprocess_bytes(stream, on_device, crops, first=first, count=count, size=size)
    stream.download(crops, output)
    stream.synchronize()
    assert (output[[2, 8]] == 9).all()  # belongs to no photo
    kernels.preprocess_bytes(stream, on_device, crops, first=2, count=1, size=size)
    stream.download(crops, output)
    stream.synchronize()
    difference = np.abs(output[:-1].astype(int) - preprocess_bytes(images, size=size))
    assert not difference[[0, 5]].any()
    assert difference.max() <= 1  # FP32 near a half
    assert (difference > 0).mean() < 2e-2
    assert (output[-1] == 9).all()


def test_kernels_refuse_to_write_out_of_bounds(driver: Driver, kernels: Kernels, stream: Stream) -> None:
    with DeviceBuffer(driver, 24) as small, DeviceBuffer(driver, 1 << 20) as large:
        with raises(ConfigError, 24, 37632):
            kernels.preprocess_bytes(stream, large, small, first=0, count=1, size=112)
        with raises(ConfigError, 24, 48):
            kernels.preprocess_bytes(stream, small, large, first=1, count=1, size=9)
        with raises(ConfigError, 24, 243):
            kernels.align_bytes(stream, large, large, small, count=1, size=9)
        with raises(ConfigError, 24, 48):
            kernels.align_bytes(stream, large, small, large, count=2, size=9)
        kernels.align_bytes(stream, small, large, large, count=0, size=8)  # an empty batch is no error


def test_align_equals_opencvs_warp() -> None:
    noise = photo(np.random.default_rng(5), 200, 150)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    transform = np.array([[1.1, -0.4, 20], [0.4, 1.1, -10]], np.float32)
    ours = warp_levels([image], transform[None], size=112)[0]
    theirs = cv2.warpAffine(image, transform, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    difference = np.abs(ours - theirs)
    assert difference.mean() < 0.5
    assert difference.max() < 5  # OpenCV interpolates in steps of 1/32 of a pixel; our border is steep


@pytest.mark.parametrize("size", [112, 80])
def test_the_inverse_transforms_give_the_crops_of_align_crops(size: int) -> None:
    noise = photo(np.random.default_rng(6), 220, 180)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    turn = np.array([[0.6, 0.25], [-0.25, 0.6]])
    landmarks = (template(112) @ turn + np.array([60.0, 30.0]))[None].repeat(3, axis=0)
    landmarks[1] = 50.0  # all five points coincide
    landmarks[2] += 0.3
    back = inverse_transforms(landmarks, size)
    assert np.isnan(back[1]).all()
    forward = similarity(landmarks[[0, 2]], template(size))
    matrices = np.concatenate([forward, np.tile([[[0.0, 0.0, 1.0]]], (2, 1, 1))], axis=1)
    np.testing.assert_allclose(back[[0, 2]], np.linalg.inv(matrices)[:, :2], atol=1e-4)
    ours = warp_bytes([image] * 2, back[[0, 2]], size=size)
    theirs = align_crops([image] * 2, landmarks[[0, 2]], size=size)
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.mean() < 0.5
    assert difference.max() <= 5  # as above
    assert not align_crops([image], landmarks[1:2], size=size).any()
