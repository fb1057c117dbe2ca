"""Make pictures of photos, small enough that a page can hold thousands."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MachineError
from ..images.decode import ImageError, Limits, decode_photo
from ..images.header import take_page
from ..images.one_photo import one_photo
from ..records import Box, FacePlace, Photo
from ..sources.reader import ReadError, read_file
from .page import picture

if TYPE_CHECKING:
    from markupsafe import Markup

_SIDE = 192  # pixels, the longer side
_LONG_SIDE = 640  # pixels; first size of a photo to cut a face from
_MARGIN = 0.2  # share of the face's box, on each side, because detectors cut close
_JPEG_QUALITY = 80


class Thumbnails:
    """Cached pictures of 192 pixels: of the face if its box is known, else of the whole photo.

    Args:
        limits: limits of the photos.
    """

    def __init__(self, limits: Limits) -> None:
        self._cached = lru_cache(maxsize=256)(partial(thumbnail, limits=limits, side=_SIDE))

    def of(self, path: bytes, face: FacePlace | None) -> Markup:
        """Return the data URL of a picture; "" if the photo cannot be shown.

        Args:
            path: absolute path of the photo.
            face: the face to show; None for the whole photo.
        """
        return picture(self._cached(path, face))


def thumbnails(
    photos: Sequence[bytes], faces: Sequence[FacePlace | None], limits: Limits, *, side: int
) -> list[bytes | None]:
    """Make small JPEGs; None for a photo that is missing, damaged, or no longer holds the face.

    Args:
        photos: n absolute paths.
        faces: n faces to show, in pixels of the original; None for the whole photo.
        limits: larger photos are refused before decoding.
        side: longest side of a JPEG, pixels.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda path, face: thumbnail(path, face, limits, side=side), photos, faces))


def thumbnail(path: bytes, face: FacePlace | None, limits: Limits, *, side: int) -> bytes | None:
    """Make one small JPEG; see `thumbnails`."""
    try:
        data = read_file(path, limits.max_bytes)
        with one_photo("draw", path):
            if face is not None and face.page is not None:
                data = take_page(data, face.page)
            return _draw(data, None if face is None else face.box, limits, side)
    except (ReadError, ImageError, MachineError):  # a page without a picture is better than none
        return None


def _draw(data: bytes, box: Box | None, limits: Limits, side: int) -> bytes | None:
    import cv2

    pixels: Any = _whole(data, limits, side) if box is None else _face(data, box, limits, side)
    if not pixels.size:
        return None
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return jpeg.tobytes() if encoded else None


def _whole(data: bytes, limits: Limits, side: int) -> NDArray[np.uint8]:
    return decode_photo(data, long_side=side, channel_order="bgr", limits=limits).pixels


def _face(data: bytes, box: Box, limits: Limits, side: int) -> NDArray[np.uint8]:
    """Cut out a box and its margin, clipped to the photo; empty if the box is outside."""
    left, top, right, bottom = box
    if not (right - left >= 1 and bottom - top >= 1):  # also catches NaN
        return np.empty((0, 0, 3), np.uint8)
    margin = _MARGIN * max(right - left, bottom - top)
    span = max(right - left, bottom - top) + 2 * margin  # pixels of the original
    photo = decode_photo(data, long_side=_LONG_SIDE, channel_order="bgr", limits=limits)
    if photo.reduction > 1 and span / photo.reduction < side:  # too small: decode again, larger
        long_side = math.ceil(max(photo.height, photo.width) * side / span)
        photo = decode_photo(data, long_side=long_side, channel_order="bgr", limits=limits)
    columns = _clip(photo, left - margin, right + margin, photo.width)
    rows = _clip(photo, top - margin, bottom + margin, photo.height)
    return photo.pixels[rows, columns]


def _clip(photo: Photo, start: float, stop: float, length: int) -> slice:
    """Convert pixels of the original to a slice of the decoded photo."""
    first, last = (round(min(max(edge, 0.0), length) / photo.reduction) for edge in (start, stop))
    return slice(first, last)
