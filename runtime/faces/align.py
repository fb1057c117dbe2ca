"""Align faces: the similarity transform from landmarks to ArcFace's template, and the warp to a crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

# Eyes, nose, mouth corners in a crop of 112x112, left first as seen in the image. Source: ArcFace, arXiv:1801.07698.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
TEMPLATE_SIZE = 112
ALIGN_RULE = (
    "five landmarks; umeyama similarity to the arcface 112 template; halved while twice as large as the crop; bilinear "
    "warp; black outside"
)
_MAX_REDUCTION = 64


def similarity(landmarks: NDArray[np.floating], target: NDArray[np.float64] = TEMPLATE) -> NDArray[np.float64]:
    """The similarity transforms (rotation, scale, shift; no mirror) that map landmarks to a target, by least squares.

    Args:
        landmarks: (N, 5, 2), pixels of the photo.
        target: (5, 2) or (N, 5, 2), pixels of the crop.
    Returns:
        (N, 2, 3): photo pixel (x, y, 1) -> crop pixel (x, y); NaN where all five landmarks coincide.
    Raises:
        ConfigError: landmarks are not (N, 5, 2).
    Source: Umeyama 1991, Least-squares estimation of transformation parameters between two point patterns.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (5, 2):
        raise ConfigError(f"landmarks are {landmarks.shape}; expected: (N, 5, 2)")
    # In the plane the best rotation has a closed form: complex regression of the target on the landmarks.
    source = landmarks[..., 0].astype(np.float64) + 1j * landmarks[..., 1]  # (N, 5)
    goal = target[..., 0] + 1j * target[..., 1]
    middle, goal_middle = source.mean(axis=-1, keepdims=True), goal.mean(axis=-1, keepdims=True)
    offset = source - middle
    with np.errstate(invalid="ignore", divide="ignore"):
        rotation = (np.conj(offset) * (goal - goal_middle)).sum(axis=-1) / (np.abs(offset) ** 2).sum(axis=-1)  # (N,)
    shift = goal_middle[..., 0] - rotation * middle[..., 0]
    rows = [[rotation.real, -rotation.imag, shift.real], [rotation.imag, rotation.real, shift.imag]]
    return np.moveaxis(np.array(rows), -1, 0)  # (N, 2, 3)


def template(size: int, margin: float = 1.0) -> NDArray[np.float64]:
    """(5, 2): ArcFace's template in a square of another size, pixel centres at whole numbers.

    Args:
        size: side of the square, pixels.
        margin: side of the square in sides of the crop in its middle; 1 for the crop itself.
    """
    scale = size / (TEMPLATE_SIZE * margin)
    return (TEMPLATE + 0.5) * scale + ((size - TEMPLATE_SIZE * scale) / 2 - 0.5)


def invert(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 3): the inverse transforms."""
    back = np.linalg.inv(transforms[:, :, :2])
    return np.concatenate([back, -back @ transforms[:, :, 2:]], axis=2)


def transform_points(points: NDArray[np.floating], transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply (N, 2, 3) transforms to (N, P, 2) points."""
    return np.asarray(points @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2])


def align_crops(
    images: Sequence[NDArray[np.uint8]],
    landmarks: NDArray[np.floating],
    *,
    size: int = TEMPLATE_SIZE,
    margin: float = 1.0,
) -> NDArray[np.uint8]:
    """Warp each face so that its five landmarks meet the template.

    A face that is at least twice as large as in its crop is halved first, by averaging squares of pixels. A bilinear
    warp alone would take every n-th pixel, and with it film grain or a print screen.

    Args:
        images: N arrays, (H, W, 3) uint8, of any size and channel order.
        landmarks: (N, 5, 2), pixels of each image: eyes, nose, mouth corners, left first as seen in the image.
        size: side S of the crop, pixels.
        margin: see `template`.
    Returns:
        (N, S, S, 3) uint8, C-contiguous; black outside the image.
    Raises:
        ConfigError: landmarks are not (N, 5, 2).
    """
    import cv2

    crops = np.zeros((len(images), size, size, 3), np.uint8)
    for crop, image, transform in zip(crops, images, similarity(landmarks, template(size, margin)), strict=True):
        if np.isfinite(transform).all():
            image, transform = _halve(image, transform, size)
            if image.size:
                cv2.warpAffine(image, transform, (size, size), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def reduction_before_warp(back: NDArray[np.floating]) -> int:
    """Factor (a power of 2) by which a photo is reduced before the warp.

    Args:
        back: (2, 3), crop pixel -> photo pixel.
    """
    scale, count = float(np.hypot(back[0, 0], back[1, 0])), 1
    while count < _MAX_REDUCTION and scale >= 2 * count:
        count *= 2
    return count


def _halve(
    image: NDArray[np.uint8], transform: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Reduce the part of an image that the crop shows. Returns it, and its transform to the crop."""
    import cv2

    (back,) = invert(transform[None])
    count = reduction_before_warp(back)
    if count == 1:
        return image, transform
    corners = np.array([[-1, -1], [size, -1], [size, size], [-1, size]]) @ back[:, :2].T + back[:, 2]  # (4, 2)
    limit = np.array(image.shape[1::-1]) // count
    first = np.clip(np.floor(corners.min(axis=0) / count) - 1, 0, limit).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0) / count) + 1, first, limit).astype(int)
    (left, top), (right, bottom) = first * count, last * count
    part, shape = image[top:bottom, left:right], tuple((last - first).tolist())
    small = cv2.resize(part, shape, interpolation=cv2.INTER_AREA) if part.size else part
    origin = first * count + (count - 1) / 2  # middle of the first square, in the image
    shift = transform[:, :2] @ origin + transform[:, 2]
    reduced = np.concatenate([transform[:, :2] * count, shift[:, None]], axis=1)
    return small, reduced  # type: ignore[return-value]


def inverse_transforms(landmarks: NDArray[np.floating], size: int, margin: float = 1.0) -> NDArray[np.float32]:
    """The transforms that `align_crops` uses, in the form that `kernels/align.cu` takes.

    Args:
        landmarks: (N, 5, 2), pixels of the photo.
        size: side S of the crop, pixels.
        margin: see `template`.
    Returns:
        (N, 2, 3) float32, crop pixel (column, row, 1) -> photo pixel (column, row). NaN, which is outside of every
        photo, where the landmarks give no direction.
    """
    transforms = similarity(landmarks, template(size, margin))
    valid = np.linalg.det(np.nan_to_num(transforms[:, :, :2])) > 0
    back = np.full(transforms.shape, np.nan, np.float32)
    back[valid] = invert(transforms[valid])
    return back
