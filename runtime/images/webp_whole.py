"""Find out whether a WebP file has a hole: its decoder takes any bytes for a picture.

Zeros in the image data of a whole file stand for areas of one colour, at most 3.5 bytes for a block of 16 by 16 pixels
(measured with all methods of libwebp); a photo has thirty and more. So zeros without such areas come from a disk.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

_HOLE = re.compile(rb"\0{256,}")
_BLOCK = 16  # pixels a side
_BYTES_A_BLOCK = 4
_SPREAD = 2  # grey levels within an area of one colour


def has_zeros(data: bytes, start: int) -> bool:
    """Whether the image data in the chunk at a place of the file have a long run of zeros."""
    return _HOLE.search(data, *_content(data, start)) is not None


def check_webp(data: bytes, start: int, decode: Callable[[bytes], Any]) -> None:
    """Check that a file has areas of one colour for its zeros.

    Args:
        data: the file.
        start: where the chunk of the image data begins.
        decode: a file to (H, W, C) uint8, or None.
    Raises:
        ValueError: it has not.
    """
    picture = decode(data)
    if picture is None:
        return  # the decoder sees the damage itself
    rows, columns = (side // _BLOCK for side in picture.shape[:2])
    blocks = picture[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, -1)
    spread = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))  # (rows, columns, C)
    flat = int((spread <= _SPREAD).all(axis=2).sum())
    longest = max(len(hole.group()) for hole in _HOLE.finditer(data, *_content(data, start)))
    if longest > _BYTES_A_BLOCK * flat:
        raise ValueError(f"{longest} bytes of the image data are zeros")


def _content(data: bytes, start: int) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, start + 4)
    return start + 8, start + 8 + length
