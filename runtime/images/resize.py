"""Resize images the same way on every path: halve by averaging four pixels, then interpolate.

This takes a twelfth of the time of averaging over areas, without the aliasing of interpolation alone. The half and
quarter scales of a JPEG decoder, DALI and a CUDA kernel can all do the same.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def shrink(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize an image: halve it while both sides stay at least as long as the target, then interpolate bilinearly.

    Args:
        image: (H, W, 3) uint8 or float32. Halving drops the last row or column of an odd side.
        height, width: target size, pixels; may be larger. A side below 1 becomes 1.
    Returns:
        (height, width, 3), dtype of the image; a new array unless the image has that size already.
    """
    import cv2

    height, width = max(1, height), max(1, width)
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
