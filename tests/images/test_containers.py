"""What a file says of its pixels is followed: pages, previews, resolutions, depths, compressions, inks."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from runtime.images.decode import ImageError, count_pages, decode_image, decode_photo
from runtime.images.header import is_image, read_header, take_page
from runtime.images.lzw import lzw_length
from runtime.records import Status
from tests.support import encoded_images as make
from tests.support.errors import raises

SCENE = make.scene(170, 140)
OTHER = make.scene(162, 131, seed=5)


def tiff(*pages: tuple[np.ndarray, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF file of several pages."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, **options) as writer:
        for pixels, settings in pages:
            writer.write(pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **settings)
    return out.getvalue()


def difference(data: bytes, pixels: np.ndarray) -> float:
    """Mean difference of a decoded file from these pixels, grey levels."""
    photo = decode_photo(data, long_side=640)
    assert photo.pixels.shape == pixels.shape
    return float(np.abs(photo.pixels.astype(int) - pixels).mean())


# Pages


def test_the_first_page_is_taken_and_the_outcome_says_so() -> None:
    data = tiff((SCENE, {}), (OTHER, {}))
    assert difference(data, SCENE) == 0
    assert decode_photo(data, long_side=640).note == "page 1 of 2"
    assert decode_photo(tiff((SCENE, {})), long_side=640).note == ""


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("marked", [False, True])
def test_a_preview_is_not_the_main_page(big: bool, order: str, marked: bool) -> None:
    preview = np.ascontiguousarray(SCENE[::2, ::2])
    data = tiff((preview, {"subfiletype": int(marked)}), (SCENE, {}), bigtiff=big, byteorder=order)
    assert difference(data, SCENE) == 0
    assert decode_photo(data, long_side=640).note == ""
    data = tiff((SCENE, {}), (preview, {"subfiletype": int(marked)}), bigtiff=big, byteorder=order)
    assert difference(data, SCENE) == 0
    assert decode_photo(data, long_side=640).note == ""


def test_a_preview_before_two_pages() -> None:
    preview = np.ascontiguousarray(SCENE[::4, ::4])
    data = tiff((preview, {"subfiletype": 1}), (SCENE, {}), (OTHER, {}))
    assert difference(data, SCENE) == 0
    assert decode_photo(data, long_side=640).note == "page 1 of 2"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_each_page_can_be_taken_alone(big: bool, order: str) -> None:
    marked = np.ascontiguousarray(SCENE[::2, ::2])
    unmarked = np.ascontiguousarray(SCENE[::4, ::4])
    deep = np.ascontiguousarray(OTHER[::-1])
    pages = ((marked, {"subfiletype": 1}), (SCENE, {}), (OTHER, {"compression": "zlib"}), (unmarked, {}), (deep, {}))
    data = tiff(*pages, bigtiff=big, byteorder=order)
    assert count_pages(data) == 3
    for page, pixels in enumerate((SCENE, OTHER, deep), 1):
        alone = take_page(data, page)
        assert difference(alone, pixels) == 0
        assert decode_photo(alone, long_side=640).note == ""
        assert count_pages(alone) == 1
    with raises(ValueError, 3, 4):
        take_page(data, 4)


def test_a_smaller_page_of_the_same_shape_counts_unless_it_is_tiny_or_marked() -> None:
    large, half = make.scene(640, 560), make.scene(320, 280, seed=5)
    data = tiff((large, {}), (half, {}))
    assert decode_photo(data, long_side=640).note == "page 1 of 2"
    assert difference(take_page(data, 2), half) == 0
    assert count_pages(tiff((large, {}), (half, {"subfiletype": 1}))) == 1
    assert count_pages(tiff((large, {}), (np.ascontiguousarray(half[::2, ::2]), {}))) == 1


def test_other_files_have_one_page() -> None:
    for data in (tiff((SCENE, {})), make.encode(SCENE), make.encode(SCENE, "PNG"), b"", b"II*\0", b"junk"):
        assert count_pages(data) == 1
        assert take_page(data, 1) == data
    damaged = tiff((SCENE, {}), (OTHER, {}))
    assert count_pages(damaged[:4] + b"\xff\xff\xff\x7f" + damaged[8:]) == 1


def test_directories_in_a_loop_end() -> None:
    data = bytearray(tiff((SCENE, {})))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    data[start + 2 + 12 * count :][:4] = struct.pack("<I", start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    assert difference(bytes(data), SCENE) == 0


# Resolution


@pytest.mark.parametrize(("across", "down"), [(204, 98), (100, 200), (200, 100), (98, 204)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_become_square(kind: str, across: int, down: int, orientation: int) -> None:
    upright = make.scene(300, 240)
    stored = Image.fromarray(np.ascontiguousarray(make.STORED[orientation](upright)))
    squeezed = stored.resize((round(stored.width * across / 200), round(stored.height * down / 200)))
    data = make.encode(np.asarray(squeezed), kind, orientation, dpi=(across, down))
    photo = decode_photo(data, long_side=640)
    got_ratio, wanted_ratio = photo.width / photo.height, 240 / 300
    assert abs(got_ratio / wanted_ratio - 1) < 0.01
    assert photo.pixels.shape[:2] == (photo.height, photo.width)
    fitted = np.asarray(Image.fromarray(upright).resize((photo.width, photo.height)))
    assert np.abs(photo.pixels.astype(int) - fitted).mean() < 4


@pytest.mark.parametrize("dpi", [(72, 72), (1, 1), (204, 196), (300, 1), (1, 300), (72, 300)])
def test_square_and_implausible_resolutions_change_nothing(dpi: tuple[int, int]) -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        photo = decode_photo(make.encode(SCENE, kind, dpi=dpi), long_side=640)
        assert (photo.height, photo.width) == SCENE.shape[:2]


# Depth


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("container", ["png", "tiff", "tiff colour"])
def test_samples_of_any_depth_in_sixteen_bits_fill_the_range(bits: int, container: str) -> None:
    grey = make.scene(170, 140)
    grey[0, 0] = 255  # the range is used
    deep = (grey.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    pixels = grey if container == "tiff colour" else np.repeat(grey[..., :1], 3, axis=2)
    data = {
        "png": lambda: make.png16(deep[..., 0]),
        "tiff": lambda: tiff((deep[..., 0], {})),
        "tiff colour": lambda: tiff((deep, {})),
    }[container]()
    assert difference(data, pixels) <= 1.0


def with_significant_bits(png: bytes, bits: int) -> bytes:
    """A PNG file with the chunk sBIT after its header."""
    body = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (10, 1023), (16, 65535)])
def test_significant_bits_of_a_png_count_more_than_the_largest_sample(bits: int, white: int) -> None:
    dark = SCENE[..., 1].astype(np.float64) / 255 / 4
    stored = (dark * white).astype(np.uint16)  # at most a quarter of white
    out = io.BytesIO()
    Image.fromarray(stored).save(out, "PNG")
    expected = np.repeat((dark * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    assert difference(with_significant_bits(out.getvalue(), bits), expected) < 1
    if bits < 16:
        full = io.BytesIO()
        Image.fromarray(SCENE[..., 1].astype(np.uint16) * 257).save(full, "PNG")  # scaled, as the standard asks for
        assert difference(with_significant_bits(full.getvalue(), bits), np.repeat(SCENE[..., 1:2], 3, axis=2)) < 1


def test_a_stated_maximum_counts_more_than_the_largest_sample() -> None:
    dark = (SCENE // 8).astype(np.uint16) * 16  # at most 496 of 4095
    data = tiff((dark, {"extratags": [(281, "H", 1, 4095, True)]}))
    assert difference(data, SCENE // 8) <= 1.0


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_sixteen_bits_are_turned_upright(orientation: int, order: str) -> None:
    stored = np.ascontiguousarray(make.STORED[orientation](SCENE)).astype(np.uint16) * 257
    data = tiff((stored, {"extratags": [(274, "H", 1, orientation, True)]}))
    got = decode_photo(data, long_side=640, channel_order=order).pixels
    expected = SCENE if order == "rgb" else SCENE[..., ::-1]
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() <= 1.0


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_scaled(scale: float, dtype: type) -> None:
    bright = SCENE.copy()
    bright[0, 0] = 255
    assert difference(tiff((bright[..., 0].astype(dtype) / 255 * scale, {})), bright[..., [0, 0, 0]]) <= 1.0
    if dtype is np.float32:
        assert difference(tiff((bright.astype(dtype) / 255 * dtype(scale), {})), bright) <= 1.0


def test_depths_that_the_decoder_lacks_are_unsupported_with_the_reason() -> None:
    for pixels, value in ((SCENE[..., 0].astype(np.uint32), "32"), (SCENE[..., 0].astype(np.int16), "int16")):
        with raises(ImageError, value) as caught:
            decode_photo(tiff((pixels, {})), long_side=640)
        assert caught.value.status is Status.UNSUPPORTED


# Compressions


def test_a_bigtiff_is_read() -> None:
    assert difference(tiff((SCENE, {}), bigtiff=True), SCENE) == 0


@pytest.mark.parametrize(
    ("number", "name"), [(34712, "JPEG 2000"), (50000, "Zstandard"), (34925, "LZMA"), (9999, "9999")]
)
def test_a_compression_that_the_decoder_lacks_is_named(number: int, name: str) -> None:
    data = bytearray(tiff((SCENE, {})))
    entry = data.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", data, entry + 8, number)
    with raises(ImageError, name, number) as caught:
        decode_photo(bytes(data), long_side=640)
    assert caught.value.status is Status.UNSUPPORTED


TIFF_KINDS = {"lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "packbits": "packbits"}


def compressed(kind: str, pixels: np.ndarray = SCENE) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF", compression=TIFF_KINDS[kind])
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (170, 140), (900, 700)])
def test_whole_strips_are_read(kind: str, shape: tuple[int, int]) -> None:
    for pixels in (make.scene(*shape), np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)):
        photo = decode_photo(compressed(kind, pixels), long_side=1000)
        np.testing.assert_array_equal(photo.pixels, pixels)


def strip_of(data: bytes, number: int) -> tuple[int, int]:
    """Start and length of a strip."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        return page.dataoffsets[number], page.databytecounts[number]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\x55"])
@pytest.mark.parametrize("seed", range(5))
def test_a_strip_that_was_overwritten_is_corrupt(kind: str, filling: bytes, seed: int) -> None:
    grain = np.random.default_rng(seed).normal(0, 6, (340, 280, 3))
    data = bytearray(compressed(kind, np.clip(make.scene(340, 280, seed=seed) + grain, 0, 255).astype(np.uint8)))
    offset, count = strip_of(bytes(data), 0)
    start = offset + count * (seed + 1) // 8
    size = min(3000, count // 3)
    data[start : start + size] = filling * size
    with pytest.raises(ImageError) as caught:
        decode_photo(bytes(data), long_side=640)
    assert caught.value.status is Status.CORRUPT


def with_last_strip(data: bytes, content: bytes) -> bytes:
    """The file with another last strip, at its end."""
    pages = data + content
    offset, count = strip_of(data, -1)
    return pages.replace(struct.pack("<I", offset), struct.pack("<I", len(data)), 1).replace(
        struct.pack("<I", count), struct.pack("<I", len(content)), 1
    )


@pytest.mark.parametrize("kind", ["deflate", "packbits"])
def test_a_strip_that_goes_on_after_its_rows_is_corrupt(kind: str) -> None:
    data = compressed(kind)
    offset, count = strip_of(data, -1)
    strip = data[offset : offset + count]
    if kind == "deflate":
        deflate = zlib.compressobj()
        longer = deflate.compress(zlib.decompress(strip) + bytes(range(200))) + deflate.flush(zlib.Z_SYNC_FLUSH)
    else:
        longer = strip + b"\x13" + bytes(range(20)) + strip[:40]  # as if runs before had become shorter
    with pytest.raises(ImageError) as caught:
        decode_photo(with_last_strip(data, longer), long_side=640)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.parametrize("kind", ["deflate", "packbits"])
@pytest.mark.parametrize("padding", [b"\0", bytes(range(16)), bytes(3000), b"\x80" * 200])
def test_padding_after_a_strip_is_harmless(kind: str, padding: bytes) -> None:
    data = compressed(kind)
    offset, count = strip_of(data, -1)
    padded = with_last_strip(data, data[offset : offset + count] + padding)
    assert strip_of(padded, -1)[1] == count + len(padding)
    np.testing.assert_array_equal(decode_photo(padded, long_side=640).pixels, SCENE)


@pytest.mark.parametrize("kind", ["deflate", "packbits"])
def test_a_last_strip_with_all_rows_of_a_strip_is_whole(kind: str) -> None:
    out = io.BytesIO()
    rows = 32  # 170 are five strips and ten rows
    Image.fromarray(SCENE).save(out, "TIFF", compression=TIFF_KINDS[kind], tiffinfo={278: rows})
    data = out.getvalue()
    filled = np.vstack([SCENE[160:], np.random.default_rng(0).integers(0, 256, (22, 140, 3), np.uint8)])
    other = io.BytesIO()
    Image.fromarray(filled).save(other, "TIFF", compression=TIFF_KINDS[kind], tiffinfo={278: rows})
    offset, count = strip_of(other.getvalue(), 0)
    full = with_last_strip(data, other.getvalue()[offset : offset + count])
    assert difference(full, SCENE) == 0


def test_a_strip_of_a_few_kilobytes_that_stands_for_gigabytes_is_no_work() -> None:
    deflate = zlib.compressobj(9)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    with pytest.raises(ImageError) as caught:
        decode_photo(with_last_strip(compressed("deflate"), bomb), long_side=640)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("damage", ["zeros", "noise", "cut"])
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_strip_is_corrupt(kind: str, damage: str, seed: int) -> None:
    data = bytearray(compressed(kind, make.scene(400, 300, seed=seed)))
    header = read_header(bytes(data))
    assert header is not None
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[-1], page.databytecounts[-1]
    start = offset + count // 3
    if damage == "cut":
        del data[start:]
    else:
        rng = np.random.default_rng(seed)
        filling = bytes(count // 3) if damage == "zeros" else rng.integers(0, 256, count // 3, np.uint8).tobytes()
        data[start : start + len(filling)] = filling
    with pytest.raises(ImageError) as caught:
        decode_photo(bytes(data), long_side=640)
    assert caught.value.status is Status.CORRUPT


def test_lzw_lengths_are_those_of_the_data() -> None:
    rng = np.random.default_rng(1)
    for content in (bytes(50_000), rng.integers(0, 256, 30_000, np.uint8).tobytes(), b"abcabcabd" * 3000, b"x"):
        out = io.BytesIO()
        Image.frombytes("L", (len(content), 1), content).save(out, "TIFF", compression="tiff_lzw")
        with tifffile.TiffFile(io.BytesIO(out.getvalue())) as file:
            page = file.pages[0]
            strip = out.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]
        assert lzw_length(strip) == len(content)


def test_twelve_bits_in_a_jpeg_are_unsupported_and_why() -> None:
    data = make.encode(SCENE)
    start = data.index(b"\xff\xc0")
    with raises(ImageError, 12) as caught:
        decode_photo(
            data[: start + 1] + b"\xc1" + data[start + 2 : start + 4] + b"\x0c" + data[start + 5 :], long_side=9
        )
    assert caught.value.status is Status.UNSUPPORTED


# Formats and inks


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_jpeg_2000_and_avif_are_read(kind: str) -> None:
    options = {"quality": 95} if kind == "AVIF" else {}
    data = make.encode(SCENE, kind, **options)
    assert difference(data, SCENE) < 3
    header = read_header(data)
    assert header is not None
    assert (header.width, header.height) == (140, 170)
    assert is_image(data[:64])
    with pytest.raises(ImageError) as caught:
        decode_photo(data[: len(data) // 3], long_side=640)
    assert caught.value.status in (Status.CORRUPT, Status.UNSUPPORTED)


def test_transparent_avif_is_laid_on_white() -> None:
    alpha = np.zeros((170, 140), np.uint8)
    alpha[:, 70:] = 255
    photo = decode_photo(make.encode(np.dstack([SCENE, alpha]), "AVIF", quality=95), long_side=640)
    assert photo.pixels[:, :60].mean() > 250
    assert np.abs(photo.pixels[:, 80:].astype(int) - SCENE[:, 80:]).mean() < 4


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_cmyk_without_adobes_marker_is_no_negative(order: str) -> None:
    cmyk = Image.fromarray(SCENE).convert("CMYK")
    inverted = Image.frombytes("CMYK", cmyk.size, bytes(255 - value for value in cmyk.tobytes()))
    out = io.BytesIO()
    inverted.save(out, "JPEG", quality=95, subsampling=0)  # Pillow inverts once more, as Adobe does
    data = out.getvalue()
    marker = re.search(rb"\xff\xee\0\x0eAdobe.{7}", data, re.DOTALL)
    assert marker is not None
    plain = data[: marker.start()] + data[marker.end() :]
    got = decode_image(plain, size=112, channel_order=order)
    expected = decode_image(make.encode(SCENE, "PNG"), size=112, channel_order=order)
    assert np.abs(got.astype(int) - expected).mean() < 4
