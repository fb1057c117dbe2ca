"""Photos as pictures small enough that a page can carry thousands."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..images.decode import ImageError, Limits, decode_photo
from ..records import Box, FacePlace, Photo
from ..sources.reader import ReadError, read_file
from .page import picture

if TYPE_CHECKING:
    from markupsafe import Markup

_SIDE = 192  # pixels
_LONG_SIDE = 640  # of a photograph that a face is cut out of, at first
_MARGIN = 0.2  # of the face's box, on each side: detectors cut close
_QUALITY = 80


class Thumbnails:
    """Pictures of 192 pixels, made once each: of the face where its place is known, else of the whole photo.

    Args:
        limits: for the photos.
    """

    def __init__(self, limits: Limits) -> None:
        self._cached = lru_cache(maxsize=256)(partial(thumbnail, limits=limits, side=_SIDE))

    def of(self, path: bytes, face: FacePlace | None) -> Markup:
        """The address of a picture that the page carries; "" where the photo cannot be shown.

        Args:
            path: absolute path of the photo.
            face: the face to show; None for the whole photo.
        """
        return picture(self._cached(path, None if face is None else face.box))


def thumbnails(
    photographs: Sequence[bytes], boxes: Sequence[Box | None], limits: Limits, *, side: int
) -> list[bytes | None]:
    """Small JPEGs; None for what is gone, damaged, or no longer the photograph that it was.

    Args:
        photographs: n absolute paths.
        boxes: n faces to show, in pixels of the original; None for the whole photograph.
        limits: what is refused before it is decoded.
        side: the longer side of a JPEG at most, pixels.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda path, box: thumbnail(path, box, limits, side=side), photographs, boxes))


def thumbnail(path: bytes, box: Box | None, limits: Limits, *, side: int) -> bytes | None:
    """One of them; arguments as for `thumbnails`."""
    import cv2

    try:
        data = read_file(path, limits.max_bytes)
        pixels: Any = _whole(data, limits, side) if box is None else _face(data, box, limits, side)
    except (ReadError, ImageError):
        return None
    if not pixels.size:
        return None
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if done else None


def _whole(data: bytes, limits: Limits, side: int) -> NDArray[np.uint8]:
    return decode_photo(data, long_side=side, channel_order="bgr", limits=limits).pixels


def _face(data: bytes, box: Box, limits: Limits, side: int) -> NDArray[np.uint8]:
    """The pixels of a box and its margin, as far as they are in the photograph; none if it lies outside."""
    left, top, right, bottom = box
    if not (right - left >= 1 and bottom - top >= 1):  # not a number, perhaps
        return np.empty((0, 0, 3), np.uint8)
    margin = _MARGIN * max(right - left, bottom - top)
    shown = max(right - left, bottom - top) + 2 * margin
    photo = decode_photo(data, long_side=_LONG_SIDE, channel_order="bgr", limits=limits)
    if photo.reduction > 1 and shown / photo.reduction < side:  # it has lost pixels that the thumbnail would show
        long_side = math.ceil(max(photo.height, photo.width) * side / shown)
        photo = decode_photo(data, long_side=long_side, channel_order="bgr", limits=limits)
    columns = _inside(photo, left - margin, right + margin, photo.width)
    rows = _inside(photo, top - margin, bottom + margin, photo.height)
    return photo.pixels[rows, columns]


def _inside(photo: Photo, start: float, stop: float, length: int) -> slice:
    """Pixels of the original to pixels that there are."""
    first, last = (round(min(max(edge, 0.0), length) / photo.reduction) for edge in (start, stop))
    return slice(first, last)
