"""Read a TIFF file: its main page, and whether the decoder can read all of it.

The decoder returns a picture even where a strip is damaged or its compression is unknown, so this looks first.
Sources: TIFF 6.0; TIFF Technical Note 2; the registry of compressions of libtiff.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from .exif import ORIENTATION, Directory, is_big, read_directories
from .header_fields import Header, UnsupportedImageError, pixel_ratio
from .lzw import lzw_length
from .packbits import packbits_length
from .raw_pixels import check_tail

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_MAX_SAMPLE, _X_RESOLUTION, _Y_RESOLUTION, _PLANAR = 281, 282, 283, 284
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 322, 323, 339
_SUBFILE, _OLD_SUBFILE = 254, 255
_LZW, _DEFLATE, _JPEG, _PACKBITS = 5, (8, 32946), 7, 32773
_JPEG_TABLES = 347
_MAX_SAMPLES = 8
_SURPLUS = 1 << 20  # bytes that a strip may hold besides its rows
_SAME_SHAPE = 0.02  # sides of a preview and its picture have the same ratio, but for rounding
_PREVIEW_SIDE = 256  # pixels; what is larger, and not marked as a preview, is a page
_COMPRESSIONS = {1, 2, 3, 4, _LZW, _JPEG, *_DEFLATE, _PACKBITS}  # that the decoder reads
_NAMES = {
    6: "JPEG of the old style", 9: "JBIG", 10: "JBIG", 32809: "ThunderScan", 34661: "JBIG", 34676: "SGI LogLuv",
    34677: "SGI LogLuv 24", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip


def read_tiff(data: bytes) -> Header:
    """The header of the main page of a TIFF file.

    Raises:
        UnsupportedImageError: the decoder does not read its compression or kind of samples.
        ValueError, struct.error, IndexError: it is truncated or damaged.
    """
    pages = read_directories(data)
    if not pages:
        raise ValueError("the file has no page")
    main, kept = _choose_pages(pages)
    width, height = page_size(main)
    if not width or not height:
        raise ValueError("the TIFF directory has no size")
    compression, samples = main.number(_COMPRESSION, 1), main.number(_SAMPLES, 1)
    if compression not in _COMPRESSIONS:
        name = _NAMES.get(compression, "unknown")
        raise UnsupportedImageError(
            f"a TIFF with the compression {compression} ({name}), which the decoder cannot read"
        )
    if samples > _MAX_SAMPLES:
        raise UnsupportedImageError(f"a TIFF of {samples} samples a pixel; expected: at most {_MAX_SAMPLES}")
    value = main.number(ORIENTATION, 1)
    bits = main.number(_BITS, 1)
    number_format = main.number(_SAMPLE_FORMAT, 1)
    return Header(
        "tiff",
        width,
        height,
        orientation=value if 1 <= value <= 8 else 1,
        channels=samples,
        depth=bits,
        pixel_ratio=pixel_ratio(main.rational(_X_RESOLUTION), main.rational(_Y_RESOLUTION)),
        max_value=main.number(_MAX_SAMPLE),
        is_float=number_format == 3,
        block_pixels=_block_pixels(main, width, height),
        note=f"page {kept.index(main) + 1} of {len(kept)}" if len(kept) > 1 else "",
        directory=main.offset if main is not pages[0] else None,
        feature=_feature(bits, number_format, is_big(data)),
    )


def tiff_pages(data: bytes) -> list[Directory]:
    """The pages of a TIFF file, in their order, without previews; as far as its directories can be read."""
    try:
        pages = read_directories(data)
    except struct.error:
        return []
    return _choose_pages(pages)[1] if pages else []


def _choose_pages(pages: list[Directory]) -> tuple[Directory, list[Directory]]:
    """The main page, and all pages that are no previews."""
    full = [page for page in pages if not _is_reduced(page)] or pages
    main = _main_page(full)
    # A larger page of the same shape may be a scan of somebody else at half the resolution.
    return main, [page for page in full if not _is_preview(page, main) or max(page_size(page)) > _PREVIEW_SIDE]


def check_strips(data: bytes, header: Header, check_jpeg: Callable[[bytes, int, int], None]) -> None:
    """Check that every strip or tile of the main page is there, and that its compression is whole.

    Args:
        data: the file.
        header: its header.
        check_jpeg: raises ValueError if a JPEG is not whole, or has more columns or rows; for strips that are JPEGs.
    Raises:
        ValueError: image data are missing or damaged.
    """
    pages = read_directories(data)
    main = next((page for page in pages if page.offset == header.directory), pages[0])
    tiled = _TILE_WIDTH in main.entries
    offsets, counts = main.numbers(324 if tiled else _STRIPS), main.numbers(325 if tiled else _STRIP_BYTES)
    tables = bytes(map(int, main.numbers(_JPEG_TABLES)))
    compression = main.number(_COMPRESSION, 1)
    samples = 1 if main.number(_PLANAR, 1) == 2 else header.channels
    columns = main.number(_TILE_WIDTH) if tiled else header.width
    rows = main.number(_TILE_HEIGHT) if tiled else min(main.number(_ROWS_PER_STRIP, header.height), header.height)
    across = -(-header.height // max(1, rows))
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
        start, stop = int(offset), int(offset + count)
        if stop > len(data):
            raise ValueError(f"strip {i} of {len(offsets)} ends after the end of the file")
        lines = rows if tiled or i % across < across - 1 else header.height - rows * (across - 1)
        row = -(-columns * samples * header.depth // 8)
        wanted = lines * row
        if compression == _LZW:
            length = lzw_length(data[start:stop])
        elif compression in _DEFLATE:
            length = _inflated_length(data[start:stop], wanted, rows * row)
        elif compression == _PACKBITS:
            length = packbits_length(data[start:stop], wanted, rows * row)
        elif compression == _JPEG:
            check_jpeg(tables[:-2] + data[start + 2 : stop] if tables else data[start:stop], columns, rows)
            continue
        else:
            if compression == 1 and i == len(offsets) - 1:
                check_tail(data, int(min(offsets)), stop, row)
            continue
        if length is not None and length < wanted and main.number(_PHOTOMETRIC) != 6:
            raise ValueError(f"strip {i} of {len(offsets)} has {length} bytes; expected: {wanted}")


def _inflated_length(strip: bytes, wanted: int, most: int) -> int:
    """Number of bytes that a strip holds.

    Args:
        strip: its zlib stream, and perhaps padding.
        wanted: bytes of its rows.
        most: bytes of as many rows as any strip has: some writers fill the last one.
    Raises:
        ValueError: it is damaged, or goes on after its rows without an end.
    """
    inflate, length = zlib.decompressobj(), 0
    try:
        while strip and not inflate.eof and length <= most + _SURPLUS:
            length += len(inflate.decompress(strip, 1 << 20))
            strip = inflate.unconsumed_tail
    except zlib.error as err:
        raise ValueError(f"damaged Deflate data: {err}") from err
    if length > wanted and not inflate.eof:
        raise ValueError(f"damaged Deflate data: they do not end at {wanted} bytes")
    return length


def page_size(page: Directory) -> tuple[int, int]:
    """Width and height as stored, pixels; 0 if the page does not state them."""
    return page.number(_WIDTH), page.number(_HEIGHT)


def _is_reduced(page: Directory) -> bool:
    """Whether a page says that it is a preview or a mask of another."""
    return bool(page.number(_SUBFILE) & 5) or page.number(_OLD_SUBFILE) == 2


def _is_preview(page: Directory, of: Directory) -> bool:
    """Whether a page shows the same shape as another with a quarter of its pixels or fewer."""
    (width, height), (large_width, large_height) = page_size(page), page_size(of)
    if not (width and height and large_width and large_height) or 4 * width * height > large_width * large_height:
        return False
    return abs(width * large_height / (height * large_width) - 1) < _SAME_SHAPE


def _main_page(pages: list[Directory]) -> Directory:
    """The first page, unless it is the preview of a later one."""
    return next((page for page in pages[1:] if _is_preview(pages[0], page)), pages[0])


def _block_pixels(page: Directory, width: int, height: int) -> int:
    """Pixels that the decoder holds besides the picture: those of a strip or tile."""
    if _TILE_WIDTH in page.entries:
        return page.number(_TILE_WIDTH) * page.number(_TILE_HEIGHT)
    return width * min(height, page.number(_ROWS_PER_STRIP, height))


def _feature(bits: int, number_format: int, big: bool) -> str:
    """What not every decoder reads; empty for an ordinary file."""
    if bits > 16 or number_format != 1:
        kind = {2: "signed", 3: "floating-point"}.get(number_format, "unsigned")
        return f"a TIFF of {bits}-bit {kind} samples"
    return "a BigTIFF" if big else ""
