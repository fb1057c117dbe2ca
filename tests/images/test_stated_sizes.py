"""A file whose data are larger than its container says is refused before they are decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from runtime.images.budget import decode_bytes
from runtime.images.decode import ImageError, decode_photo
from runtime.images.header import read_header
from runtime.records import Status
from tests.support import encoded_images as make
from tests.support.avif_files import box, grid_avif, state_size
from tests.support.errors import raises

LARGE = make.scene(340, 280)
TILE = make.scene(96, 64)


def jp2_behind_a_small_one() -> bytes:
    """A JPEG 2000 file with the start of a small codestream in a box that nobody reads."""
    data = make.encode(LARGE, "JPEG2000")
    sizes = struct.pack(">HHIIIIIIIIH", 47, 0, 64, 64, 0, 0, 64, 64, 0, 0, 3) + b"\7\1\1" * 3
    at = data.index(b"jp2c") - 4
    return data[:at] + box(b"free", b"\xff\x4f\xff\x51" + sizes) + data[at:]


def jpeg_in_a_small_tiff() -> bytes:
    """A TIFF file of 64x64 pixels whose one strip is a larger JPEG."""
    out = io.BytesIO()
    Image.fromarray(LARGE).save(out, "TIFF", compression="jpeg", tiffinfo={278: 340})
    data = bytearray(out.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257, 278):
            struct.pack_into("<HHI", data, entry + 2, 4, 0, 1)
            struct.pack_into("<HII", data, entry + 2, 4, 1, 64)
    return bytes(data)


def animation() -> bytes:
    """An AVIF file of two pictures whose container says that they are small."""
    out = io.BytesIO()
    Image.fromarray(LARGE).save(out, "AVIF", save_all=True, append_images=[Image.fromarray(LARGE[::-1])])
    return state_size(out.getvalue(), 64, 64)


TRANSPARENT = np.dstack([LARGE, LARGE[..., :1]])
FILES: dict[str, Callable[[], bytes]] = {
    "AVIF": lambda: state_size(make.encode(LARGE, "AVIF"), 64, 64),
    "AVIF one side": lambda: state_size(make.encode(LARGE, "AVIF"), 280, 200),
    "transparent AVIF": lambda: state_size(make.encode(TRANSPARENT, "AVIF"), 64, 64),
    "animated AVIF": animation,
    "grid": lambda: grid_avif(TILE, 3, 3, stated=(64, 64)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_whose_data_are_larger_than_it_says_is_corrupt(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_photo(FILES[name](), long_side=640)
    assert caught.value.status is Status.CORRUPT


def test_a_jpeg_that_is_larger_than_its_tiff_file_is_not_decoded() -> None:
    with raises(ImageError, "280x340", "64x64") as caught:
        decode_photo(jpeg_in_a_small_tiff(), long_side=640)
    assert caught.value.status is Status.CORRUPT


def test_the_codestream_of_a_jpeg_2000_file_is_the_one_that_is_decoded() -> None:
    header = read_header(jp2_behind_a_small_one())
    assert header is not None
    assert (header.width, header.height) == (280, 340)


@pytest.mark.parametrize("shape", [(1, 1), (37, 51), (340, 280), (65, 640)])
@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_the_stated_size_of_ordinary_files_is_taken(kind: str, shape: tuple[int, int]) -> None:
    for pixels in (make.scene(*shape), np.dstack([make.scene(*shape)] * 2)[..., :4]):
        header = read_header(make.encode(pixels, kind))
        assert header is not None
        assert (header.height, header.width) == shape


def test_a_grid_is_read_and_its_tiles_are_counted() -> None:
    data = grid_avif(TILE, 2, 3)
    photo = decode_photo(data, long_side=640)
    assert np.abs(photo.pixels.astype(int) - np.tile(TILE, (2, 3, 1))).mean() < 4
    header, plain = read_header(data), read_header(make.encode(make.scene(192, 192), "AVIF"))
    assert header is not None
    assert plain is not None
    assert decode_bytes(header, 1) > decode_bytes(plain, 1)


def test_a_container_that_says_impossible_things_is_no_work() -> None:
    data = grid_avif(TILE, 1, 2)
    places = data.index(b"iloc") + 4
    many = data[: places + 4] + b"\0\0" + data[places + 6 : places + 14] + b"\xff\xff" + data[places + 16 :]
    for broken in (many, data.replace(b"iloc", b"free"), data.replace(b"dimg", b"free"), data[:200]):
        with pytest.raises(ImageError):
            decode_photo(broken, long_side=640)
    units = make.encode(TILE, "AVIF")
    start = units.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2
    offset = struct.unpack_from(">I", units, start)[0]
    assert units[offset : offset + 2] == b"\x12\0"
    longer = units[:start] + struct.pack(">II", len(units), 10_000) + units[start + 8 :] + b"\x12\0" * 5000
    with raises(ImageError, 1000) as caught:
        decode_photo(longer, long_side=640)
    assert caught.value.status is Status.UNSUPPORTED
