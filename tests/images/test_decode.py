"""The pixel contract: every format, orientation and depth, compared with Pillow or the encoded array."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from runtime.images.decode import ImageError, Limits, decode_image, decode_photo
from runtime.images.header import read_header
from runtime.records import Status
from tests.support import encoded_images as make
from tests.support.avif_files import box, grid_avif
from tests.support.errors import raises

SQUARE = make.scene(112, 112)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pillow's averaging resize to 112x112."""
    return np.asarray(Image.fromarray(pixels).resize((112, 112), Image.Resampling.BOX))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_every_format_in_both_channel_orders(kind: str, order: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = make.encode(SQUARE, kind, **options)
    got = decode_image(data, size=112, channel_order=order)
    assert got.shape == (112, 112, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    expected = SQUARE if order == "rgb" else SQUARE[..., ::-1]
    assert difference(got, expected) < (2.0 if kind == "JPEG" else 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("alpha", [False, True])
def test_all_eight_orientations_are_applied(kind: str, orientation: int, alpha: bool) -> None:
    if alpha and kind == "JPEG":
        return  # JPEG has no transparency
    stored = make.STORED[orientation](make.scene(160, 120))
    if alpha:
        stored = np.dstack([stored, np.full(stored.shape[:2], 255, np.uint8)])
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decode_image(make.encode(stored, kind, orientation, **options), size=112)
    assert difference(got, square(make.scene(160, 120))) < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(112, 112), (160, 120), (400, 300), (1200, 900), (3000, 2000), (40, 60), (2000, 50)])
def test_every_size_is_averaged_over_the_whole_image(shape: tuple[int, int]) -> None:
    pixels = make.scene(*shape)
    got = decode_image(make.encode(pixels), size=112)
    assert difference(got, square(pixels)) < 3.0


def test_grey_progressive_cmyk_and_subsampled_jpeg() -> None:
    grey = SQUARE[..., 1]
    got = decode_image(make.encode(grey), size=112)
    assert difference(got, np.repeat(grey[..., None], 3, axis=2)) < 2.0
    assert difference(decode_image(make.encode(SQUARE, progressive=True), size=112), SQUARE) < 2.0
    assert difference(decode_image(make.encode(SQUARE, subsampling=2), size=112), SQUARE) < 4.0
    assert difference(decode_image(make.cmyk_jpeg(SQUARE), size=112), SQUARE) < 4.0


def test_sixteen_bits_become_eight() -> None:
    grey = (SQUARE[..., 0].astype(np.uint16) << 8) + 77
    got = decode_image(make.png16(grey), size=112)
    assert difference(got, np.repeat(SQUARE[..., :1], 3, axis=2)) <= 1.0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_blended_onto_white(kind: str) -> None:
    alpha = np.zeros((112, 112), np.uint8)
    alpha[:, 56:] = 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = decode_image(make.encode(np.dstack([SQUARE, alpha]), kind, **options), size=112)
    if kind == "TIFF":  # a fourth TIFF sample may not be transparency: the colours are used unchanged
        assert difference(got[:, 56:], SQUARE[:, 56:]) < 0.01
        return
    assert (got[:, :56] == 255).all()
    assert difference(got[:, 56:], SQUARE[:, 56:]) < 0.01


def test_a_palette_with_transparency_and_grey_with_alpha() -> None:
    import io

    palette = Image.fromarray(SQUARE).quantize(16)
    out = io.BytesIO()
    palette.save(out, "PNG", transparency=3)
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == 3] = 255
    assert difference(decode_image(out.getvalue(), size=112), expected) < 0.01
    grey_alpha = np.dstack([SQUARE[..., 0], np.full((112, 112), 128, np.uint8)])
    got = decode_image(make.encode(grey_alpha, "PNG"), size=112)
    expected = np.repeat((SQUARE[..., :1] * 128.0 + 255 * 127) / 255, 3, axis=2)
    assert np.abs(got - expected).max() <= 1.0


BAD = {
    "empty": (b"", Status.CORRUPT, ("empty",)),
    "text": (b"this is not a photograph\n", Status.UNSUPPORTED, ("JPEG, PNG, BMP, WebP or TIFF",)),
    "gif": (b"GIF89a" + bytes(50), Status.UNSUPPORTED, ("JPEG",)),
    "truncated": (make.encode(make.scene(400, 300))[:6000], Status.CORRUPT, ()),
    "header only": (make.encode(SQUARE)[:30], Status.CORRUPT, ()),
    "three bytes": (b"\xff\xd8\xff", Status.CORRUPT, ()),
    "png cut": (make.encode(SQUARE, "PNG")[:3000], Status.CORRUPT, ("png",)),
    "bomb": (make.png_bomb(60_000, 60_000), Status.UNSUPPORTED, ("60000x60000",)),
    "no pixels": (make.png_bomb(0, 5), Status.CORRUPT, ("0x5",)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_outcomes_with_a_reason(name: str) -> None:
    data, status, values = BAD[name]
    with raises(ImageError, *values) as caught:
        decode_image(data, size=112)
    assert caught.value.status is status


def test_limits_are_checked_before_decoding() -> None:
    data = make.encode(SQUARE)
    with raises(ImageError, 100):
        decode_image(data, size=112, limits=Limits(max_bytes=100))
    with raises(ImageError, "112x112", 12543):
        decode_image(data, size=112, limits=Limits(max_pixels=112 * 112 - 1))
    assert decode_image(data, size=112, limits=Limits(max_pixels=112 * 112)).shape == (112, 112, 3)


FILES = [make.encode(make.scene(90, 70), kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF")]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_damaged_files_raise_only_image_error(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(damaged)))
    with suppress(ImageError):  # any other exception, or a crash of the decoder, fails the test
        got = decode_image(bytes(damaged[:cut]), size=112, limits=Limits(max_pixels=1_000_000))
        assert got.shape == (112, 112, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_headers_give_the_stored_size(kind: str) -> None:
    for lossless in (False, True) if kind == "WEBP" else (False,):
        options = {"lossless": lossless} if kind == "WEBP" else {}
        header = read_header(make.encode(make.scene(90, 70), kind, **options))
        assert header is not None
        assert (header.kind, header.width, header.height) == (kind.lower(), 70, 90)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("transparent", [False, True])
def test_an_avif_file_is_turned_by_its_properties(orientation: int, transparent: bool) -> None:
    upright = make.scene(96, 64)
    stored = np.ascontiguousarray(make.STORED[orientation](upright))
    if transparent:
        stored = np.dstack([stored, np.full(stored.shape[:2], 255, np.uint8)])
    photo = decode_photo(make.encode(stored, "AVIF", orientation, quality=95), long_side=96)
    assert (photo.height, photo.width) == (96, 64)
    assert photo.pixels.shape == upright.shape
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 4


def test_a_grid_is_turned_as_a_whole() -> None:
    tile = make.scene(96, 64)
    photo = decode_photo(grid_avif(tile, 2, 3, turn=box(b"irot", b"\1") + box(b"imir", b"\0")), long_side=640)
    expected = make.STORED[5](np.tile(tile, (2, 3, 1)))
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 4
