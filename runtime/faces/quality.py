"""The quality of a face: its size, sharpness, exposure and frontality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .align import TEMPLATE, similarity, transform_points

_EDGE = 0.18  # share of each side of a crop that is not measured: the surroundings of the face
_EXTREME = 0.05  # share of the darkest and of the lightest pixels that the range leaves out


def interocular(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N,) distance between the eyes, pixels, of landmarks (N, 5, 2)."""
    return np.asarray(np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1), np.float32)


def frontal(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N,) frontality: 1 for a face that looks straight at the camera, down to 0 in profile.

    The nose divides the line between the eyes: the result is the shorter part over the longer. Turning the head (yaw)
    changes it; nodding and tilting do not.

    Args:
        landmarks: (N, 5, 2), pixels.
    """
    axis = landmarks[:, 1] - landmarks[:, 0]  # (N, 2)
    length = np.maximum((axis * axis).sum(axis=1), 1e-12)
    position = ((landmarks[:, 2] - landmarks[:, 0]) * axis).sum(axis=1) / length  # 0 at one eye, 1 at the other
    shorter = np.clip(np.minimum(position, 1 - position), 0, None)
    return np.asarray(shorter / np.maximum(1 - shorter, 1e-12), np.float32)


def fit(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N,) misfit of five landmarks: how far they are from ArcFace's template after the best similarity transform.

    Args:
        landmarks: (N, 5, 2), pixels.
    Returns:
        The mean distance in distances between the template's eyes: 0 for the template itself, 0.76 at most; 1 where all
        five landmarks coincide.
    """
    placed = transform_points(landmarks, similarity(landmarks))  # (N, 5, 2), in the crop
    off = np.linalg.norm(placed - TEMPLATE, axis=2).mean(axis=1) / interocular(TEMPLATE[None])
    return np.asarray(np.where(np.isfinite(off), off, 1.0), np.float32)


def sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N,) variance of the Laplacian in the middle of aligned crops, grey levels squared: low for blurred crops.

    Args:
        crops: (N, S, S, 3) uint8. The middle 64 % of each side is measured, the face without its surroundings.
    Source: Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy.
    """
    import cv2

    edge = round(_EDGE * crops.shape[1])
    variances = np.empty(len(crops), np.float32)
    for i, crop in enumerate(crops):
        grey = cv2.cvtColor(crop[edge:-edge, edge:-edge], cv2.COLOR_BGR2GRAY)
        variances[i] = cv2.Laplacian(grey, cv2.CV_32F).var()
    return variances


def exposure(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The exposure of the middle of aligned crops, as for `sharpness`, in grey levels from 0 to 255.

    Args:
        crops: (N, S, S, 3) uint8, in any order of channels: a grey level is their mean.
    Returns:
        (N,) mean: low for a dark crop; and (N,) range, without the extreme twentieths: low for a flat one.
    """
    import cv2

    edge = round(_EDGE * crops.shape[1])
    means, ranges = np.empty(len(crops), np.float32), np.empty(len(crops), np.float32)
    for i, crop in enumerate(crops):
        grey = cv2.transform(crop[edge:-edge, edge:-edge], np.full((1, 3), 1 / 3, np.float32))
        counts = np.bincount(grey.ravel(), minlength=256).cumsum()  # (256,) pixels up to each level
        low, high = np.searchsorted(counts, [_EXTREME * counts[-1], (1 - _EXTREME) * counts[-1]])
        means[i], ranges[i] = grey.mean(), high - low
    return means, ranges


def measure_crops(faces: NDArray[np.void], crops: NDArray[np.uint8]) -> None:
    """Set what the crops say about the quality of faces.

    Args:
        faces: (N,) FACE, which is changed.
        crops: (N, S, S, 3) uint8.
    """
    faces["sharpness"] = sharpness(crops)
    faces["brightness"], faces["contrast"] = exposure(crops)
