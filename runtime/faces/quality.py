"""The quality of a face: its size, sharpness and frontality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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


def sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N,) variance of the Laplacian in the middle of aligned crops, grey levels squared: low for blurred crops.

    Args:
        crops: (N, S, S, 3) uint8. The middle 64 % of each side is measured, the face without its surroundings.
    Source: Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy.
    """
    import cv2

    edge = round(0.18 * crops.shape[1])
    variances = np.empty(len(crops), np.float32)
    for i, crop in enumerate(crops):
        grey = cv2.cvtColor(crop[edge:-edge, edge:-edge], cv2.COLOR_BGR2GRAY)
        variances[i] = cv2.Laplacian(grey, cv2.CV_32F).var()
    return variances
