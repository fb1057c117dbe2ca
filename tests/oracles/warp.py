"""Photos to aligned crops by similarity transforms: the expected outputs of `kernels/align.cu`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.faces.align import reduction_before_warp


def warp_bytes(
    images: Sequence[NDArray[np.uint8]], transforms: NDArray[np.float32], *, size: int, reverse: bool = False
) -> NDArray[np.uint8]:
    """Warp each photo as `align_crops` does, for an engine that normalises: grey levels rounded, halves upwards.

    Args:
        images: N arrays, (H, W, 3) uint8, of any sizes.
        transforms: (N, 2, 3), crop pixel (column, row, 1) -> photo pixel (column, row); pixel centres are
            whole numbers, as in cv2.warpAffine with WARP_INVERSE_MAP. Outside of a photo is black.
        size: side S of the crop, pixels.
        reverse: the crop's channels are the photo's in reverse order.
    Returns:
        (N, S, S, 3) uint8, C-contiguous; a new array.
    """
    return (warp_levels(images, transforms, size, reverse) + 0.5).astype(np.uint8)


def warp_levels(
    images: Sequence[NDArray[np.uint8]], transforms: NDArray[np.float32], size: int, reverse: bool = False
) -> NDArray[np.float64]:
    """(N, S, S, 3) float64: grey levels of the crops, not rounded; see `warp_bytes`."""
    rows, columns = np.mgrid[:size, :size]
    grid = np.stack([columns.ravel(), rows.ravel(), np.ones(size * size)])  # (3, S * S)
    levels = np.empty((len(images), size, size, 3))
    for crop, image, transform in zip(levels, images, transforms, strict=True):
        count = reduction_before_warp(transform)
        height, width = (side // count for side in image.shape[:2])
        squares = image[: height * count, : width * count].reshape(height, count, width, count, 3).mean(axis=(1, 3))
        places = (transform.astype(np.float64) @ grid + 0.5) / count - 0.5  # (2, S * S)
        pixels = _bilinear(squares, *places)  # (S * S, 3)
        crop[:] = (pixels[:, ::-1] if reverse else pixels).reshape(crop.shape)
    return levels


def _bilinear(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P, 3) grey levels of an image at P positions, from the four pixels around each."""
    height, width = image.shape[:2]
    x0, y0 = np.floor(x), np.floor(y)
    levels = np.zeros((len(x), 3))
    for row in (y0, y0 + 1):
        for column in (x0, x0 + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            at = row[inside].astype(np.intp), column[inside].astype(np.intp)
            levels[inside] += weight[inside, None] * image[at]
    return levels
