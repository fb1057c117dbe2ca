"""Read the header of an image file: format, size, and all that decides about a decode, before decoding.

A small file can contain a huge image (a decompression bomb), or thousands of scans, so these are checked first.
Sources: PNG third edition, WebP container (RFC 9649), BMP, JPEG 2000 (ITU T.800).
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace

from .avif_header import read_avif
from .boxes import boxes, check_boxes
from .exif import exif_orientation, only_directory
from .header_fields import Header as Header  # callers of read_header use it
from .header_fields import UnsupportedImageError, pixel_ratio
from .jpeg_header import read_jpeg
from .raw_pixels import check_tail
from .tiff_header import page_size, read_tiff, tiff_pages
from .webp_whole import has_zeros

SNIFF_BYTES = 64  # enough for `is_image`
MAX_CHUNKS = 100_000  # of a PNG or WebP file
MAX_OTHER_CHUNKS = 1_000  # of a PNG file, besides image data
_UNCOMPRESSED = 0, 3  # of a BMP file: as they are, or with masks
_TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"


def read_header(data: bytes) -> Header | None:
    """The header of an encoded image, or None if facemill does not read its format.

    Raises:
        UnsupportedImageError: the format is known, but facemill does not take this kind of file.
        ValueError: the format is known, but the header is truncated or inconsistent.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return read_jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM":
            return _bmp(data)
        if data[:4] in _TIFF:
            return read_tiff(data)
        if data[:12] == _JP2 or data[:4] == _CODESTREAM:
            return _jp2(data)
        if data[4:12] in (b"ftypavif", b"ftypavis"):
            return read_avif(data)
    except (struct.error, IndexError) as err:
        raise ValueError("the header is truncated") from err
    return None


def page_pixels(data: bytes) -> list[int]:
    """Pixels of each page of a file, without previews; empty for a format without pages, and for a damaged file."""
    return [math.prod(page_size(page)) for page in tiff_pages(data)] if data[:4] in _TIFF else []


def take_page(data: bytes, page: int) -> bytes:
    """The file with only one of its pages.

    Args:
        data: an encoded file.
        page: its number, from 1; a file of one page, or of a format without pages, is returned as it is.
    Raises:
        ValueError: the file has fewer pages.
    """
    pages = tiff_pages(data) if data[:4] in _TIFF else []
    if page > max(1, len(pages)):
        raise ValueError(f"the file has {max(1, len(pages))} pages, and no page {page}")
    return only_directory(pages[page - 1]) if len(pages) > 1 else data


def is_image(start: bytes) -> bool:
    """Whether the first SNIFF_BYTES bytes of a file are those of an image that facemill reads."""
    try:
        return read_header(start) is not None
    except ValueError:
        return True  # a known format, and the rest of its header comes later


def _png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    alpha, orientation, ratio, significant = colour in (4, 6), 1, 1.0, 0
    at, chunks, others = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if not kind.isalpha():
            raise ValueError(f"a chunk of the PNG file has no name at byte {at}: it is damaged")
        chunks += 1
        if kind not in (b"IDAT", b"fdAT", b"fcTL"):
            others += 1
        if chunks > MAX_CHUNKS or others > MAX_OTHER_CHUNKS:
            raise UnsupportedImageError(
                f"a PNG of more than {MAX_CHUNKS} chunks, or {MAX_OTHER_CHUNKS} besides image data"
            )
        if kind == b"IEND":
            break
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        elif kind == b"sBIT" and depth == 16 and length:
            significant = max(data[at + 8 : at + 8 + min(length, 3 if colour == 2 else 1)])
        elif kind == b"pHYs":
            ratio = pixel_ratio(*struct.unpack_from(">II", data, at + 8))
        at += 12 + length
    channels = {0: 1, 2: 3, 3: 3, 4: 2}.get(colour, 4)
    return Header(
        "png",
        width,
        height,
        alpha,
        orientation,
        channels=channels,
        depth=max(8, depth),
        pixel_ratio=ratio,
        max_value=(1 << significant) - 1 if 8 <= significant <= 16 else 0,
    )


def _webp(data: bytes) -> Header:
    image = _webp_image(data)
    holes = image if image is not None and has_zeros(data, image) else 0
    return replace(_webp_header(data), doubtful=holes > 0, image_at=holes)


def _webp_header(data: bytes) -> Header:
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
    orientation, at, chunks = 1, 12, 0
    while data[20] & 0x08 and at + 8 <= len(data):  # the EXIF flag; its chunk comes after the image
        chunk, length = struct.unpack_from("<4sI", data, at)
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise UnsupportedImageError(f"a WebP file of more than {MAX_CHUNKS} chunks")
        if chunk == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
            break
        at += 8 + length + (length & 1)
    return Header("webp", width, height, bool(data[20] & 0x10), orientation)


def _webp_image(data: bytes) -> int | None:
    """Where the chunk of the image data of a WebP file begins; None if there is none, as in an animation."""
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8 ", b"VP8L"):
            return at
        at += 8 + length + (length & 1)
    return None


def _bmp(data: bytes) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:  # OS/2 1.x
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    row = (width * bits + 31) // 32 * 4
    if compression in _UNCOMPRESSED and row > 0:
        check_tail(data, start, start + row * abs(height), row)
    return Header("bmp", width, abs(height))


def _jp2(data: bytes) -> Header:
    """JPEG 2000, as a file or a bare codestream: the sizes are those of its SIZ marker, which the decoder uses."""
    at = 0
    if data[:4] != _CODESTREAM:
        check_boxes(data)
        at = next((box.start for box in boxes(data) if box.kind == b"jp2c"), len(data))
        if data[at : at + 4] != _CODESTREAM:
            raise ValueError("the JPEG 2000 file has no image size")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    samples = list(struct.iter_unpack("BBB", data[at + 42 : at + 42 + 3 * channels]))  # depth, steps across and down
    usual = channels <= 4 and all(depth < 16 and (across, down) == (1, 1) for depth, across, down in samples)
    return Header(
        "jp2",
        right - left,
        bottom - top,
        channels=channels,
        depth=(data[at + 42] & 0x7F) + 1,
        feature="" if usual else "a JPEG 2000 file of more channels, deeper or smaller ones than usual",
    )
