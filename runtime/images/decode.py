"""Decode an encoded photo to pixels. The numeric contract of a pixel.

EXIF orientation is applied, pixels become square, grey and CMYK become colour, all depths become 8 bits, transparency
becomes white.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..counts import check_count
from ..records import Photo, Status
from .budget import DECODERS, decode_bytes
from .colour import to_colour
from .exif import first_directory_at
from .header import Header, page_pixels, read_header
from .header_fields import UnsupportedImageError
from .jpeg_header import read_jpeg
from .jpeg_pixels import check_pixels, decode_jpeg
from .jpeg_whole import whole_jpeg
from .one_photo import ImageError as ImageError  # callers of the two functions catch it
from .one_photo import one_photo
from .resize import shrink
from .tiff_header import check_strips
from .tiff_of_jpeg import tiff_of_jpeg
from .webp_whole import check_webp

JPEG_SCALES = (8, 4, 2)  # reductions that a JPEG decoder offers

MAX_SIDE = 1 << 20  # pixels: OpenCV takes no longer side
MAX_PAGES = 100  # of a file whose pages are all decoded
_MAX_PAGES_PIXELS = 10  # of all pages together, times the limit of a photo: what follows takes time
_STRIP_SLACK = 16  # pixels that a JPEG may be larger than its strip: writers fill the blocks
_OPTIONAL = "jp2", "avif"  # formats that not every OpenCV reads; it writes what it reads
KINDS = "JPEG, PNG, BMP, WebP or TIFF file, nor JPEG 2000 or AVIF"

DECODE_RULE = (
    "opencv; exif applied; alpha on white; halved (a jpeg by its decoder) while not below the crop; linear resize"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of photos, checked before decoding.

    Attributes:
        max_bytes: maximum size of the encoded file.
        max_pixels: maximum width x height in the header.
    Raises:
        ConfigError: a limit is no whole number, below 1, or larger than a file can store.
    """

    max_bytes: int = defaults.MAX_BYTES
    max_pixels: int = defaults.MAX_PIXELS

    def __post_init__(self) -> None:
        check_count("max_bytes", self.max_bytes)
        check_count("max_pixels", self.max_pixels)


def decode_image(
    data: bytes, *, size: int, channel_order: str = "rgb", limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Decode one photo and resize it to the crop.

    Args:
        data: an encoded file: JPEG, PNG, BMP, WebP, TIFF, JPEG 2000 or AVIF.
        size: side S of the crop, pixels. The whole image is resized; its aspect ratio is not kept.
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding; None for the defaults.
    Returns:
        (S, S, 3) uint8, C-contiguous; a new array.
    Raises:
        ImageError: the file is empty, of an unknown format, over a limit, or damaged; no other error of the photo.
    """
    return decode_crop(data, size=size, channel_order=channel_order, limits=limits).pixels


def decode_crop(data: bytes, *, size: int, channel_order: str = "rgb", limits: Limits | None = None) -> Photo:
    """Like `decode_image`: the crop as pixels of a photo, with the note of its file.

    Raises:
        ImageError: see `decode_image`.
    """
    with one_photo("decode"):
        header = _check_header(data, limits or Limits())
        width, height = header.squared()
        pixels = shrink(_decode(data, header, min(width, height) // size, channel_order), size, size)
        return Photo(pixels, 1, height, width, header.note)


def decode_photo(data: bytes, *, long_side: int, channel_order: str = "rgb", limits: Limits | None = None) -> Photo:
    """Decode one whole photo, reduced as long as its long side does not fall below `long_side`.

    Args:
        data: an encoded file: JPEG, PNG, BMP, WebP, TIFF, JPEG 2000 or AVIF.
        long_side: minimum long side of a reduced photo, pixels.
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding; None for the defaults.
    Raises:
        ImageError: the file is empty, of an unknown format, over a limit, or damaged; no other error of the photo.
    """
    with one_photo("decode"):
        header = _check_header(data, limits or Limits())
        size = header.squared()
        pixels = _decode(data, header, max(size) // long_side, channel_order)
        reduction = max(1, round(max(size) / max(pixels.shape[:2])))
        height, width = sorted(size, reverse=pixels.shape[0] > pixels.shape[1])
        return Photo(pixels, reduction, height, width, header.note)


def count_pages(data: bytes, limits: Limits | None = None) -> int:
    """Number of pages of a file, without previews: 1 for a format without pages, and for a damaged file.

    Raises:
        ImageError: there are more than MAX_PAGES, or all of them together are too large.
    """
    pixels, largest = page_pixels(data), (limits or Limits()).max_pixels
    if len(pixels) > MAX_PAGES:
        raise ImageError(Status.UNSUPPORTED, f"{len(pixels)} pages, over the limit of {MAX_PAGES}")
    total = sum(min(count, largest) for count in pixels)  # a page over the limit is not decoded
    if total > _MAX_PAGES_PIXELS * largest:
        raise ImageError(
            Status.UNSUPPORTED,
            f"{total} pixels on {len(pixels)} pages, over the limit of {_MAX_PAGES_PIXELS} times {largest}",
        )
    return max(1, len(pixels))


def _check_header(data: bytes, limits: Limits) -> Header:
    """Read the header of a file and check the limits."""
    if not data:
        raise ImageError(Status.CORRUPT, "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError(Status.UNSUPPORTED, f"{len(data)} bytes, over the limit of {limits.max_bytes}")
    try:
        header = read_header(data)
    except UnsupportedImageError as err:
        raise ImageError(Status.UNSUPPORTED, str(err)) from err
    except ValueError as err:
        raise ImageError(Status.CORRUPT, str(err)) from err
    if header is None:
        raise ImageError(Status.UNSUPPORTED, f"not a {KINDS}: it begins with {data[:8].hex(' ')}")
    if header.width < 1 or header.height < 1:
        raise ImageError(Status.CORRUPT, f"the header says {header.width}x{header.height} pixels")
    if header.width * header.height > limits.max_pixels:
        raise ImageError(
            Status.UNSUPPORTED,
            f"{header.width}x{header.height} pixels, over the limit of {limits.max_pixels}",
        )
    if max(header.width, header.height) > MAX_SIDE:
        raise ImageError(
            Status.UNSUPPORTED, f"{header.width}x{header.height} pixels, over the limit of {MAX_SIDE} a side"
        )
    return header


def _decode(data: bytes, header: Header, max_reduction: int, channel_order: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 in this channel order, upright, with square pixels, reduced at most `max_reduction` times."""
    reduction = jpeg_scale(max_reduction)
    needed = decode_bytes(header, reduction)
    if needed > DECODERS.total:
        raise ImageError(
            Status.UNSUPPORTED,
            f"{needed} bytes of memory to decode {header.width}x{header.height} pixels, over the limit of "
            f"{DECODERS.total}",
        )
    with DECODERS.take(needed):
        data = _prepare(data, header)
        image = _decode_pixels(data, header, reduction, channel_order)
        if header.kind != "jpeg":  # reduce it like a JPEG, so that few pixels stay in memory
            rows, columns = (max(1, side // reduction) for side in image.shape[:2])
            image = shrink(image[: rows * reduction, : columns * reduction], rows, columns)
        return np.ascontiguousarray(_square_pixels(image, header))


def _prepare(data: bytes, header: Header) -> bytes:
    """Check what the decoder does not, and change the file where the decoder would take it wrongly.

    Raises:
        ImageError: image data are missing or damaged.
    """
    try:
        if header.kind == "tiff":
            check_strips(data, header, _check_jpeg)
        if header.doubtful and header.kind == "webp":
            check_webp(data, header.image_at, _look)
        elif header.doubtful:
            data = whole_jpeg(data, _look, sequential=not header.coefficients)
        if header.plain_cmyk:
            check_pixels(data)
    except ValueError as err:
        raise ImageError(Status.CORRUPT, str(err)) from err
    if header.directory is not None:
        data = first_directory_at(data, header.directory)
    return tiff_of_jpeg(data, header) if header.plain_cmyk else data


def _decode_pixels(data: bytes, header: Header, reduction: int, channel_order: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 in this channel order, upright; a JPEG is reduced."""
    import cv2

    image: Any
    if header.kind == "jpeg" and header.channels != 2 and not header.plain_cmyk and not header.feature:
        try:
            image = decode_jpeg(data, (header.height, header.width), reduction, channel_order)
        except ValueError as err:
            raise ImageError(Status.CORRUPT, str(err)) from err
        if image is not None:
            return _orient(image, header.orientation)
    unchanged = header.alpha or header.is_float
    if not unchanged and header.depth <= 8:
        flags = cv2.IMREAD_COLOR_RGB if channel_order == "rgb" else cv2.IMREAD_COLOR_BGR
        if header.kind == "avif":  # OpenCV follows EXIF, and an AVIF file is turned by its own properties
            return _orient(_imdecode(data, header, flags | cv2.IMREAD_IGNORE_ORIENTATION), header.orientation)
        image = _imdecode(data, header, flags | _reduction(header, reduction))
        return image  # type: ignore[no-any-return]
    # OpenCV ignores the RGB flag for some files of 16 bits.
    image = _imdecode(data, header, cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH)
    image = to_colour(image, header.max_value)
    if unchanged:
        image = _orient(image, header.orientation)
    return image[..., ::-1] if channel_order == "rgb" else image  # type: ignore[no-any-return]


def _imdecode(data: bytes, header: Header, flags: int) -> Any:
    """What OpenCV makes of a file.

    Raises:
        ImageError: OpenCV cannot decode it.
    """
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as err:
        if err.code == cv2.Error.STS_NO_MEM:
            raise  # `one_photo` finds out whether the photo or the machine is the reason
        raise ImageError(Status.CORRUPT, f"the decoder refused it: {err.err or err}") from err
    if image is not None:
        return image
    if header.feature or (header.kind in _OPTIONAL and not cv2.haveImageWriter(f"photo.{header.kind}")):
        raise ImageError(Status.UNSUPPORTED, f"{header.feature or header.kind}: the decoder cannot read it")
    raise ImageError(Status.CORRUPT, f"the {header.kind} data is damaged or truncated")


def _check_jpeg(data: bytes, columns: int, rows: int) -> None:
    """Check that a JPEG within another file is whole, and not larger than the file says.

    Raises:
        ValueError: it is not.
    """
    try:
        header = read_jpeg(data)
    except (struct.error, IndexError) as err:
        raise ValueError("the header of a JPEG in the file is damaged") from err
    if header.width > columns + _STRIP_SLACK or header.height > rows + _STRIP_SLACK:
        raise ValueError(f"a JPEG of {header.width}x{header.height} pixels stands for {columns}x{rows}")
    if header.doubtful:
        data = whole_jpeg(data, _look, sequential=not header.coefficients)
    check_pixels(data)


def _look(data: bytes) -> Any:
    """All pixels of a JPEG as stored; None if it cannot be decoded. A reduced picture would not show all changes."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION)


def _square_pixels(image: NDArray[np.uint8], header: Header) -> NDArray[np.uint8]:
    """Stretch an upright picture whose pixels are not square."""
    import cv2

    if header.pixel_ratio == 1:
        return image
    ratio = header.pixel_ratio if header.orientation < 5 else 1 / header.pixel_ratio
    height, width = image.shape[:2]
    size = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    stretched: Any = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return stretched  # type: ignore[no-any-return]


def _reduction(header: Header, reduction: int) -> int:
    """OpenCV's flag for the 1/2, 1/4 or 1/8 scale of the JPEG decoder, to add to a colour flag; 0 for none.

    The scaled inverse DCT averages, as `shrink` would later.
    """
    import cv2

    if header.kind != "jpeg" or header.plain_cmyk:
        return 0
    # The names contain "grayscale" because these bits without a colour flag mean that.
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_GRAYSCALE_8
    return {1: 0, **dict(zip((2, 4, 8), flags, strict=True))}[reduction]


def jpeg_scale(max_reduction: int) -> int:
    """The largest reduction of a JPEG decoder that is at most `max_reduction`: 1, 2, 4 or 8."""
    return next((scale for scale in JPEG_SCALES if max_reduction >= scale), 1)


def _orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn an image upright by its EXIF orientation, 1 to 8 (EXIF 2.32, 4.6.4)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
