"""Read the header of an image file: format and size, before decoding.

A small file can contain a huge image (a decompression bomb), so the size is checked first.
Sources: ITU T.81 (JPEG), PNG third edition, WebP container (RFC 9649), TIFF 6.0, EXIF 2.32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ORIENTATION_TAG = 0x0112
SNIFF_BYTES = 64  # enough for `is_image`


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file.

    Attributes:
        kind: "jpeg", "png", "bmp", "webp" or "tiff".
        width, height: pixels as stored, before any EXIF rotation.
        alpha: whether it may have transparency.
        orientation: EXIF orientation, 1 to 8. Read only for formats with alpha; OpenCV applies it for the others.
    """

    kind: str
    width: int
    height: int
    alpha: bool = False
    orientation: int = 1


def read_header(data: bytes) -> Header | None:
    """The header of an encoded image, or None if facemill does not read its format.

    Raises:
        ValueError: the format is known, but the header is truncated or inconsistent.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM":
            return _bmp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (struct.error, IndexError) as err:
        raise ValueError("the header is truncated") from err
    return None


def is_image(start: bytes) -> bool:
    """Whether the first SNIFF_BYTES bytes of a file are those of an image that facemill reads."""
    try:
        return read_header(start) is not None
    except ValueError:
        return True  # a known format, and the rest of its header comes later


def _jpeg(data: bytes) -> Header:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Header("jpeg", width, height)
        elif marker == 0xDA or marker == 0xD9:
            raise ValueError("the image data begins before the size")
        else:
            at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _png(data: bytes) -> Header:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    alpha, orientation, at = colour in (4, 6), 1, 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            break
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    return Header("png", width, height, alpha, orientation)


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
    if kind != b"VP8X":
        raise ValueError(f"unknown WebP chunk {kind!r}")
    width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    orientation, at = 1, 12
    while data[20] & 0x08 and at + 8 <= len(data):  # the EXIF flag; its chunk comes after the image
        chunk, length = struct.unpack_from("<4sI", data, at)
        if chunk == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + (length & 1)
    return Header("webp", width, height, bool(data[20] & 0x10), orientation)


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2 1.x
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height))


def _tiff(data: bytes) -> Header:
    tags = _ifd(data)
    if 256 not in tags or 257 not in tags:
        raise ValueError("the first TIFF directory has no size")
    return Header("tiff", tags[256], tags[257])


def _ifd(data: bytes) -> dict[int, int]:
    """Tags of the first directory that have a single SHORT or LONG value."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, int] = {}
    for i in range(count):
        tag, kind, number = struct.unpack_from(order + "HHI", data, start + 2 + 12 * i)
        if number == 1 and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 10 + 12 * i)
    return tags


def _exif_orientation(block: bytes) -> int:
    """Orientation of an EXIF block (which is a TIFF file); 1 if it is missing or invalid."""
    try:
        value = _ifd(block).get(_ORIENTATION_TAG, 1)
    except (struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1
