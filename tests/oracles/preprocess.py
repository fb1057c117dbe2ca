"""Whole photos to crops: the expected outputs of `kernels/preprocess.cu`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.images.decode import jpeg_scale
from runtime.images.resize import shrink


def preprocess_bytes(images: Sequence[NDArray[np.uint8]], *, size: int) -> NDArray[np.uint8]:
    """Resize decoded JPEGs as `decode_image` does, for an engine that normalises: grey levels rounded, halves upwards.

    Args:
        images: N arrays, (H, W, 3) uint8, of any sizes.
        size: side S of the crop, pixels.
    Returns:
        (N, S, S, 3) uint8, C-contiguous; a new array.
    """
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for crop, image in zip(crops, images, strict=True):
        scaled = _scaled(image, jpeg_scale(min(image.shape[:2]) // size))
        crop[:] = shrink(scaled, size, size) + 0.5
    return crops


def _scaled(image: NDArray[np.uint8], scale: int) -> NDArray[np.float32]:
    """(ceil(H / scale), ceil(W / scale), 3): block means, as a JPEG decoder scales; edge pixels repeat."""
    height, width = (-(-side // scale) for side in image.shape[:2])
    missing = [(0, height * scale - image.shape[0]), (0, width * scale - image.shape[1]), (0, 0)]
    squares = np.pad(image, missing, mode="edge").reshape(height, scale, width, scale, 3)
    means: NDArray[np.float32] = squares.mean(axis=(1, 3), dtype=np.float32)
    return means
