"""Photographs of one size to normalised crops: the answer that `kernels/preprocess.cu` has to give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def preprocess_crops(
    images: NDArray[np.uint8], *, size: int, mean: Sequence[float], std: Sequence[float], reverse: bool = False
) -> NDArray[np.float32]:
    """Resize as `decode_image` does, but without rounding to whole grey levels, and normalise.

    Args:
        images: (N, H, W, 3) uint8.
        size: side S of the crop, pixels.
        mean, std: by channel of the crop, in grey levels: the crop is (level - mean) / std.
        reverse: the crop's channels are the photograph's in reverse order.
    Returns:
        (N, 3, S, S) float32, C-contiguous; a new array.
    """
    import cv2

    height, width = images.shape[1:3]
    how = cv2.INTER_AREA if height >= size and width >= size else cv2.INTER_LINEAR
    crops = np.empty((len(images), 3, size, size), np.float32)
    for crop, image in zip(crops, images, strict=True):
        levels = cv2.resize(image.astype(np.float32), (size, size), interpolation=how)  # (S, S, 3)
        levels = levels[..., ::-1] if reverse else levels
        crop[:] = ((levels - np.asarray(mean)) / np.asarray(std)).transpose(2, 0, 1)
    return crops
