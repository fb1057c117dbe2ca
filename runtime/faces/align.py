"""Landmarks to an aligned crop: the similarity transform to ArcFace's template, and the warp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

# Eyes, nose, mouth corners in a crop of 112x112, left first as seen in the picture. Source: ArcFace, arXiv:1801.07698.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
TEMPLATE_SIZE = 112
ALIGN_RULE = (
    "five landmarks; umeyama similarity to the arcface 112 template; halved while twice as large as the crop; bilinear "
    "warp; black outside"
)
_MOST_MERGED = 64


def similarity(landmarks: NDArray[np.floating], target: NDArray[np.float64] = TEMPLATE) -> NDArray[np.float64]:
    """The similarity transforms (turn, scale, shift; no mirror) that bring landmarks nearest to a target.

    Args:
        landmarks: (N, 5, 2), pixels of the photograph.
        target: (5, 2) or (N, 5, 2), pixels of the crop.
    Returns:
        (N, 2, 3): photograph pixel (x, y, 1) -> crop pixel (x, y), least squares; NaN where all five are one.
    Raises:
        ConfigError: landmarks are not (N, 5, 2).
    Source: Umeyama 1991, Least-squares estimation of transformation parameters between two point patterns.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (5, 2):
        raise ConfigError(f"landmarks are {landmarks.shape}; expected: (N, 5, 2)")
    # In the plane the best turn has a closed form: complex regression of the target on the landmarks.
    source = landmarks[..., 0].astype(np.float64) + 1j * landmarks[..., 1]  # (N, 5)
    goal = target[..., 0] + 1j * target[..., 1]
    middle, goal_middle = source.mean(axis=-1, keepdims=True), goal.mean(axis=-1, keepdims=True)
    apart = source - middle
    with np.errstate(invalid="ignore", divide="ignore"):
        turn = (np.conj(apart) * (goal - goal_middle)).sum(axis=-1) / (np.abs(apart) ** 2).sum(axis=-1)  # (N,)
    shift = goal_middle[..., 0] - turn * middle[..., 0]
    rows = [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]
    return np.moveaxis(np.array(rows), -1, 0)  # (N, 2, 3)


def template(size: int) -> NDArray[np.float64]:
    """(5, 2): ArcFace's template in a crop of another size, pixel centres at whole numbers."""
    scale = size / TEMPLATE_SIZE
    return (TEMPLATE + 0.5) * scale - 0.5


def inverted(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 3): the transforms back."""
    back = np.linalg.inv(transforms[:, :, :2])
    return np.concatenate([back, -back @ transforms[:, :, 2:]], axis=2)


def moved(points: NDArray[np.floating], transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, P, 2) points through (N, 2, 3) transforms."""
    return np.asarray(points @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2])


def align_crops(
    images: Sequence[NDArray[np.uint8]], landmarks: NDArray[np.floating], *, size: int = TEMPLATE_SIZE
) -> NDArray[np.uint8]:
    """Warp each face so that its five landmarks meet the template.

    A face that is at least twice as large as in its crop is halved first, by means of squares of pixels: a bilinear
    warp alone would take every n-th pixel, and with it the grain of the film or the screen of the print.

    Args:
        images: N arrays, (H, W, 3) uint8, of any sizes and channel order.
        landmarks: (N, 5, 2), pixels of its image: eyes, nose, mouth corners, left first as seen in the picture.
        size: side S of the crop, pixels.
    Returns:
        (N, S, S, 3) uint8, C-contiguous; what lies outside an image is black.
    Raises:
        ConfigError: landmarks are not (N, 5, 2).
    """
    import cv2

    crops = np.zeros((len(images), size, size, 3), np.uint8)
    for crop, image, transform in zip(crops, images, similarity(landmarks, template(size)), strict=True):
        if np.isfinite(transform).all():
            image, transform = _halved(image, transform, size)
            if image.size:
                cv2.warpAffine(image, transform, (size, size), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def merged(back: NDArray[np.floating]) -> int:
    """How many pixels (a power of 2) of a photograph's row are one before the warp.

    Args:
        back: (2, 3), crop pixel -> photograph pixel.
    """
    scale, count = float(np.hypot(back[0, 0], back[1, 0])), 1
    while count < _MOST_MERGED and scale >= 2 * count:
        count *= 2
    return count


def _halved(
    image: NDArray[np.uint8], transform: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image that the crop shows, as means of squares, and the transform from there."""
    import cv2

    (back,) = inverted(transform[None])
    count = merged(back)
    if count == 1:
        return image, transform
    corners = np.array([[-1, -1], [size, -1], [size, size], [-1, size]]) @ back[:, :2].T + back[:, 2]  # (4, 2)
    most = np.array(image.shape[1::-1]) // count
    first = np.clip(np.floor(corners.min(axis=0) / count) - 1, 0, most).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0) / count) + 1, first, most).astype(int)
    (left, top), (right, bottom) = first * count, last * count
    part, shape = image[top:bottom, left:right], tuple((last - first).tolist())
    small = cv2.resize(part, shape, interpolation=cv2.INTER_AREA) if part.size else part
    moved_by = first * count + (count - 1) / 2  # where the middle of the first square is in the image
    there = np.concatenate([transform[:, :2] * count, (transform[:, :2] @ moved_by + transform[:, 2])[:, None]], axis=1)
    return small, there  # type: ignore[return-value]


def transforms_back(landmarks: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """The transforms that `align_crops` warps by, as `kernels/align.cu` takes them.

    Args:
        landmarks: (N, 5, 2), pixels of the photograph.
        size: side S of the crop, pixels.
    Returns:
        (N, 2, 3) float32, crop pixel (column, row, 1) -> photograph pixel (column, row); NaN, which is outside of every
        photograph, where the landmarks tell no direction.
    """
    there = similarity(landmarks, template(size))
    known = np.linalg.det(np.nan_to_num(there[:, :, :2])) > 0
    back = np.full(there.shape, np.nan, np.float32)
    back[known] = inverted(there[known])
    return back
