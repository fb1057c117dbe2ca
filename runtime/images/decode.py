"""Decode an encoded photo to pixels. The numeric contract of a pixel.

EXIF orientation is applied, grey and CMYK become colour, 16 bits become 8, transparency becomes white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..records import Photo, Status
from .header import Header, read_header
from .one_photo import ImageError as ImageError  # callers of the two functions catch it
from .one_photo import one_photo
from .resize import shrink

JPEG_SCALES = (8, 4, 2)  # reductions that a JPEG decoder offers

DECODE_RULE = (
    "opencv; exif applied; alpha on white; halved (a jpeg by its decoder) while not below the crop; linear resize"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of photos, checked before decoding.

    Attributes:
        max_bytes: maximum size of the encoded file.
        max_pixels: maximum width x height in the header.
    """

    max_bytes: int = defaults.MAX_BYTES
    max_pixels: int = defaults.MAX_PIXELS


def decode_image(
    data: bytes, *, size: int, channel_order: str = "rgb", limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Decode one photo and resize it to the crop.

    Args:
        data: an encoded JPEG, PNG, BMP, WebP or TIFF file.
        size: side S of the crop, pixels. The whole image is resized; its aspect ratio is not kept.
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding; None for the defaults.
    Returns:
        (S, S, 3) uint8, C-contiguous; a new array.
    Raises:
        ImageError: the file is empty, of an unknown format, over a limit, or damaged; no other error of the photo.
    """
    with one_photo("decode"):
        header = _check_header(data, limits or Limits())
        return shrink(_decode(data, header, min(header.width, header.height) // size, channel_order), size, size)


def decode_photo(data: bytes, *, long_side: int, channel_order: str = "rgb", limits: Limits | None = None) -> Photo:
    """Decode one whole photo, reduced as long as its long side does not fall below `long_side`.

    Args:
        data: an encoded JPEG, PNG, BMP, WebP or TIFF file.
        long_side: minimum long side of a reduced photo, pixels.
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding; None for the defaults.
    Raises:
        ImageError: the file is empty, of an unknown format, over a limit, or damaged; no other error of the photo.
    """
    with one_photo("decode"):
        header = _check_header(data, limits or Limits())
        pixels = _decode(data, header, max(header.width, header.height) // long_side, channel_order)
        reduction = max(1, round(max(header.width, header.height) / max(pixels.shape[:2])))
        height, width = sorted((header.height, header.width), reverse=pixels.shape[0] > pixels.shape[1])
        return Photo(pixels, reduction, height, width)


def _check_header(data: bytes, limits: Limits) -> Header:
    """Read the header of a file and check the limits."""
    if not data:
        raise ImageError(Status.CORRUPT, "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError(Status.UNSUPPORTED, f"{len(data)} bytes, over the limit of {limits.max_bytes}")
    try:
        header = read_header(data)
    except ValueError as err:
        raise ImageError(Status.CORRUPT, str(err)) from err
    if header is None:
        raise ImageError(
            Status.UNSUPPORTED, f"not a JPEG, PNG, BMP, WebP or TIFF file: it begins with {data[:8].hex(' ')}"
        )
    if header.width < 1 or header.height < 1:
        raise ImageError(Status.CORRUPT, f"the header says {header.width}x{header.height} pixels")
    if header.width * header.height > limits.max_pixels:
        raise ImageError(
            Status.UNSUPPORTED,
            f"{header.width}x{header.height} pixels, over the limit of {limits.max_pixels}",
        )
    return header


def _decode(data: bytes, header: Header, max_reduction: int, channel_order: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 in this channel order, upright, reduced at most `max_reduction` times."""
    import cv2

    if header.alpha:
        flags = cv2.IMREAD_UNCHANGED
    else:
        flags = cv2.IMREAD_COLOR_RGB if channel_order == "rgb" else cv2.IMREAD_COLOR_BGR
        flags |= _reduction(header, max_reduction)
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as err:
        if err.code == cv2.Error.STS_NO_MEM:
            raise ImageError(Status.UNREADABLE, f"no memory to decode {header.width}x{header.height} pixels") from err
        raise ImageError(Status.CORRUPT, f"the decoder refused it: {err.err or err}") from err
    if image is None:
        raise ImageError(Status.CORRUPT, f"the {header.kind} data is damaged or truncated")
    if header.alpha:
        image = _orient(_flatten(image), header.orientation)
        if channel_order == "rgb":
            image = image[..., ::-1]
    if header.kind != "jpeg":  # reduce it like a JPEG, so that few pixels stay in memory
        scale = jpeg_scale(max_reduction)
        rows, columns = (max(1, side // scale) for side in image.shape[:2])
        image = shrink(image[: rows * scale, : columns * scale], rows, columns)
    return np.ascontiguousarray(image)


def _reduction(header: Header, max_reduction: int) -> int:
    """OpenCV's flag for the 1/2, 1/4 or 1/8 scale of the JPEG decoder, to add to a colour flag; 0 for none.

    The scaled inverse DCT averages, as `shrink` would later. `max_reduction` keeps the result at least as large as the
    size to which it is resized, so no detail is lost.
    """
    import cv2

    if header.kind != "jpeg":
        return 0
    # The names contain "grayscale" because these bits without a colour flag mean that.
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_GRAYSCALE_8
    return {1: 0, **dict(zip((2, 4, 8), flags, strict=True))}[jpeg_scale(max_reduction)]


def jpeg_scale(max_reduction: int) -> int:
    """The largest reduction of a JPEG decoder that is at most `max_reduction`: 1, 2, 4 or 8."""
    return next((scale for scale in JPEG_SCALES if max_reduction >= scale), 1)


def _flatten(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn an array from IMREAD_UNCHANGED into (H, W, 3) uint8 BGR, with transparency on white."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 2:  # grey and alpha
        image = image[..., [0, 0, 0, 1]]
    if image.shape[2] != 4:
        return np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8)
    alpha = image[..., 3:].astype(np.uint16)
    mixed = image[..., :3] * alpha + 255 * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)


def _orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn an image upright by its EXIF orientation, 1 to 8 (EXIF 2.32, 4.6.4)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
