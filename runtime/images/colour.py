"""Turn pixels of any depth and number of channels into colour of 8 bits, with transparency on white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Status
from .one_photo import ImageError

_STRIP_PIXELS = 1 << 20  # so that the arrays in between stay small
_USUAL_BITS = (8, 10, 12, 14, 16)  # of cameras and scanners that store their samples in 16 bits


def to_colour(image: NDArray[Any], max_value: int = 0) -> NDArray[np.uint8]:
    """Convert a picture as its decoder returned it.

    Args:
        image: (H, W) or (H, W, C), C from 1 to 4; uint8, uint16 or floating-point. With two or four channels, the last
            one is the transparency.
        max_value: the largest sample by the file; 0 if it does not say so.
    Returns:
        (H, W, 3) uint8, the channel order of `image`; a new array.
    Raises:
        ImageError: the samples are of another kind.
    """
    if image.dtype != np.uint8 and image.dtype != np.uint16 and image.dtype.kind != "f":
        raise ImageError(Status.UNSUPPORTED, f"samples of the kind {image.dtype}; expected: 8 or 16 bits, or floats")
    if image.ndim == 2:
        image = image[..., None]
    white = _white(image, max_value)
    result = np.empty((*image.shape[:2], 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, image.shape[1]))
    for start in range(0, len(image), rows):
        strip = _to_eight_bits(image[start : start + rows], white)
        result[start : start + rows] = _flatten(strip)
    return result


def _white(image: NDArray[Any], max_value: int) -> float:
    """The sample that stands for white: a camera of 12 bits stores at most 4095 of 65535."""
    if image.dtype == np.uint8:
        return 255.0
    if image.dtype == np.uint16:
        if max_value and int(image.max()) <= max_value:
            return float(max_value)
        return next(float((1 << bits) - 1) for bits in _USUAL_BITS if int(image.max()) < 1 << bits)
    largest = float(np.nanmax(image, initial=0.0))
    return next((white for white in (1.0, 255.0, 65535.0) if largest <= white), largest)


def _to_eight_bits(strip: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Map 0 to white onto 0 to 255."""
    if strip.dtype == np.uint8:
        return strip
    if strip.dtype == np.uint16 and white == 65535:
        return np.asarray(strip >> 8, np.uint8)
    scaled = np.nan_to_num(strip.astype(np.float32)) * np.float32(255 / white)
    return np.asarray(np.clip(scaled + 0.5, 0, 255), np.uint8)


def _flatten(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 1 to 4) to (H, W, 3) or (H, W, 1), with transparency on white."""
    if strip.shape[2] == 2:  # grey and alpha
        strip = strip[..., [0, 0, 0, 1]]
    if strip.shape[2] != 4:
        return strip
    alpha = strip[..., 3:].astype(np.uint16)
    mixed = strip[..., :3] * alpha + 255 * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)
