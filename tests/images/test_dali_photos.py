"""Photos and views from DALI's CPU graph, compared with `decode_photo` and `draw`."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.faces.finder import View, draw
from runtime.images.dali_photos import DaliPhotos, DevicePhoto, PhotoRun, canvas_side, photo_decoder_bytes
from runtime.images.decode import Limits, decode_photo
from runtime.images.jpeg_runs import RUNS_BYTES, DaliOptions
from tests.support import encoded_images as make

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in DALI's dependencies cannot be fixed here
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

UPRIGHT = make.scene(400, 300)
PORTRAITS = [make.encode(make.scene(400, 300, seed)) for seed in range(6)]
LONG_SIDES = (100, 160, 448)


@pytest.fixture(scope="module")
def decoder() -> Iterator[DaliPhotos]:
    with DaliPhotos(LONG_SIDES, 640, options=DaliOptions(batch_size=8)) as decoder:
        yield decoder


def at(address: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the pixels at an address. With DALI's CPU graph, device memory is host memory."""
    return np.frombuffer((ctypes.c_ubyte * int(np.prod(shape))).from_address(address), np.uint8).reshape(shape)


def pixels(photo: DevicePhoto) -> NDArray[np.uint8]:
    return at(photo.address, (*photo.shape, 3))


def views(run: PhotoRun) -> list[NDArray[np.uint8]]:
    return [at(canvas.address, (len(run.photos), canvas.side, canvas.side, 3)) for canvas in run.canvases]


def close(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Return whether the mean difference is below 1.5 grey levels."""
    return bool(np.abs(a.astype(int) - b.astype(int)).mean() < 1.5)


def only(decoder: DaliPhotos, files: Sequence[bytes]) -> PhotoRun:
    (run,) = decoder.decode(files)
    assert run.indices == list(range(len(files)))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(400, 300), (300, 400), (112, 112), (90, 301), (1279, 900), (1280, 961), (3000, 2600), (5120, 3001)]
)
def test_a_photo_equals_that_of_decode_photo(decoder: DaliPhotos, shape: tuple[int, int]) -> None:
    data = make.encode(make.scene(*shape), subsampling=2)
    (photo,) = (run := only(decoder, [data])).photos
    expected = decode_photo(data, long_side=640)
    assert (photo.reduction, photo.height, photo.width) == (expected.reduction, expected.height, expected.width)
    got, expected_pixels = pixels(photo), expected.pixels
    assert np.abs(np.subtract(got.shape, expected_pixels.shape)).max() <= 1
    height, width = np.minimum(got.shape, expected_pixels.shape)[:2]
    assert close(got[:height, :width], expected_pixels[:height, :width])
    assert photo.reduction > 1 or close(pixels(photo), expected_pixels)
    del run


@pytest.mark.slow
def test_photos_of_all_shapes_share_the_view_shapes(decoder: DaliPhotos) -> None:
    files = [make.encode(make.scene(*shape)) for shape in ((400, 300), (211, 401), (112, 112), (60, 80), (1300, 1000))]
    run = only(decoder, files)
    assert [run_canvas.side for run_canvas in run.canvases] == [128, 160, 448]
    for long_side, canvases in zip(LONG_SIDES, views(run), strict=True):
        for photo, canvas in zip(run.photos, canvases, strict=True):
            expected = np.zeros_like(canvas)
            draw(pixels(photo), View(long_side), expected)
            assert np.abs(canvas.astype(int) - expected).max() <= 1
            np.testing.assert_array_equal(canvas.any(axis=2).any(axis=0), expected.any(axis=2).any(axis=0))
            np.testing.assert_array_equal(canvas.any(axis=2).any(axis=1), expected.any(axis=2).any(axis=1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations(decoder: DaliPhotos, orientation: int) -> None:
    data = make.encode(make.STORED[orientation](UPRIGHT), orientation=orientation)
    run = only(decoder, [data])
    (photo,) = run.photos
    assert (photo.height, photo.width) == (400, 300)
    assert close(pixels(photo), UPRIGHT)
    assert views(run)[1][0].any(axis=2).any(axis=0).sum() == 120


def test_bgr_is_rgb_reversed(decoder: DaliPhotos) -> None:
    with DaliPhotos(LONG_SIDES, 640, "bgr") as bgr_decoder:
        bgr, rgb = only(bgr_decoder, PORTRAITS[:1]), only(decoder, PORTRAITS[:1])
        np.testing.assert_array_equal(pixels(bgr.photos[0])[..., ::-1], pixels(rgb.photos[0]))
        np.testing.assert_array_equal(views(bgr)[1][..., ::-1], views(rgb)[1])


def test_a_grey_photo_has_three_equal_channels(decoder: DaliPhotos) -> None:
    (photo,) = (run := only(decoder, [make.encode(UPRIGHT[..., 0])])).photos
    assert close(pixels(photo), np.repeat(UPRIGHT[..., :1], 3, axis=2))
    del run


@pytest.mark.slow
def test_a_file_that_dali_cannot_decode_does_not_affect_the_others(decoder: DaliPhotos) -> None:
    at_table = PORTRAITS[0].index(b"\xff\xc4") + 5
    damaged = PORTRAITS[0][:at_table] + bytes([255] * 16) + PORTRAITS[0][at_table + 16 :]
    bad = [damaged, make.encode(UPRIGHT, "PNG"), PORTRAITS[1][:4000], b"", b"text"]
    files = [*PORTRAITS[:2], *bad, *PORTRAITS[2:], damaged]
    runs = list(decoder.decode(files))
    assert sorted(i for run in runs for i in run.indices) == [0, 1, 7, 8, 9, 10]
    for run in runs:  # photos of a discarded pipeline are still valid
        for i, photo in zip(run.indices, run.photos, strict=True):
            assert close(pixels(photo), decode_photo(files[i], long_side=640).pixels)


@pytest.mark.slow
def test_photos_remain_valid_while_their_run_is_referenced(decoder: DaliPhotos) -> None:
    run = only(decoder, PORTRAITS)
    before = [pixels(photo).copy() for photo in run.photos]
    for _ in range(5):
        only(decoder, PORTRAITS[::-1])
    for photo, expected in zip(run.photos, before, strict=True):
        np.testing.assert_array_equal(pixels(photo), expected)


@pytest.mark.slow
def test_a_run_is_limited_in_pixels() -> None:
    with DaliPhotos(LONG_SIDES, 640, options=DaliOptions(batch_pixels=2 * 400 * 300, batch_size=4)) as decoder:
        assert [run.indices for run in decoder.decode(PORTRAITS[:5])] == [[0, 1], [2, 3], [4]]
        assert list(decoder.decode([make.encode(make.scene(500, 500))])) == []
    with DaliPhotos(LONG_SIDES, 640, options=DaliOptions(limits=Limits(max_pixels=300 * 400 - 1))) as decoder:
        assert list(decoder.decode(PORTRAITS)) == []
        assert list(decoder.decode([])) == []


def test_dali_accepts_the_graph_for_a_gpu() -> None:
    """Without a GPU, the test can only check that the graph builds and that its outputs are on the device."""
    import nvidia.dali

    pipe = DaliPhotos((160, 448), 640, options=DaliOptions(device="mixed"))._runs._pipeline(nvidia.dali)
    assert [output.device for output in pipe._graph_out] == ["gpu"] * 3


def test_dalis_memory_is_reported() -> None:
    assert [canvas_side(side) for side in (1, 32, 33, 160, 224)] == [32, 32, 64, 160, 224]
    assert photo_decoder_bytes(10, (160, 200)) == RUNS_BYTES + 30 * (160**2 + 224**2)
