"""Photographs to aligned crops by similarity transforms: the answer that `kernels/align.cu` has to give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def warp_crops(
    images: Sequence[NDArray[np.uint8]],
    transforms: NDArray[np.float32],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    reverse: bool = False,
) -> NDArray[np.float32]:
    """Warp each photograph bilinearly and normalise; what lies outside it is black. Grey levels are not rounded.

    Args:
        images: N arrays, (H, W, 3) uint8, of any sizes.
        transforms: (N, 2, 3), crop pixel (column, row, 1) -> photograph pixel (column, row); pixel centres are
            whole numbers, as in cv2.warpAffine with WARP_INVERSE_MAP.
        size: side S of the crop, pixels.
        mean, std: by channel of the crop, in grey levels: the crop is (level - mean) / std.
        reverse: the crop's channels are the photograph's in reverse order.
    Returns:
        (N, 3, S, S) float32, C-contiguous; a new array.
    """
    rows, columns = np.mgrid[:size, :size]
    grid = np.stack([columns.ravel(), rows.ravel(), np.ones(size * size)])  # (3, S * S)
    crops = np.empty((len(images), 3, size, size), np.float32)
    for crop, image, transform in zip(crops, images, transforms, strict=True):
        levels = _bilinear(image, *(transform.astype(np.float64) @ grid))  # (S * S, 3)
        levels = levels[:, ::-1] if reverse else levels
        crop[:] = ((levels - np.asarray(mean)) / np.asarray(std)).T.reshape(3, size, size)
    return crops


def _bilinear(image: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 3) grey levels of an image at P places, from the four pixels around each."""
    height, width = image.shape[:2]
    left, top = np.floor(x), np.floor(y)
    levels = np.zeros((len(x), 3))
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            at = row[inside].astype(np.intp), column[inside].astype(np.intp)
            levels[inside] += weight[inside, None] * image[at]
    return levels
