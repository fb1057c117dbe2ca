"""Where the face of each crop is: box and landmarks by a trained detector, which also throws out what is no face."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.faces.align import TEMPLATE
from runtime.faces.detectors import decoder_of
from runtime.faces.finder import Finder, FindRules, View

from .teacher import DetectorTeacher

logger = logging.getLogger(__name__)

# A detector's landmarks differ by half a pixel with the size that it sees; the mean of several sizes is steadier.
_RULES = FindRules(views=(View(96, 0.5), View(128, 0.5), View(160, 0.5)), retries=())
_BORDER = 28  # pixels of a crop's edge repeated around it: detectors are trained on heads, not on masks
_FARTHEST = 8.0  # pixels, mean distance of landmarks to the template that the crop was aligned to
_AT_ONCE = 64


@dataclass(frozen=True)
class Labels:
    """The faces of some crops.

    Attributes:
        rows: (n,) int64, the crops that hold one.
        boxes: (n, 4) float32, left, top, right, bottom in pixels of the crop; may lie beyond it.
        landmarks: (n, 5, 2) float32, pixels of the crop.
    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, boxes and landmarks where the run computes."""
        device = torch.get_default_device()
        rows, boxes, landmarks = (torch.from_numpy(x).to(device) for x in (self.rows, self.boxes, self.landmarks))
        return rows, boxes, landmarks


def label_crops(crops: NDArray[np.uint8], key: str, teacher: DetectorTeacher, cache: Path) -> Labels:
    """Label all crops, once.

    Args:
        crops: (N, S, S, 3) uint8 RGB, aligned to the ArcFace template.
        key: of `crops_key`: which crops they are.
        teacher: labels them.
        cache: folder that keeps the labels for the next run.
    Raises:
        ValueError: none holds a face.
    """
    of_all = f"{key} {crops.shape} {_RULES!s}".encode() + teacher.weights.read_bytes()
    path = cache / f"labels-{hashlib.sha256(of_all).hexdigest()[:16]}.npz"
    if not path.exists():
        logger.info("labelling %d crops by %s, once for this run's folder", len(crops), teacher.weights.name)
        cache.mkdir(parents=True, exist_ok=True)
        found = _label(crops, teacher)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, rows=found.rows, boxes=found.boxes, landmarks=found.landmarks)
        partial.rename(path)
    with np.load(path) as kept:
        labels = Labels(kept["rows"], kept["boxes"], kept["landmarks"])
    if not len(labels.rows):
        raise ValueError(
            f"none of {len(crops)} crops holds a face by {teacher.weights}; wanted: faces aligned to ArcFace's template"
        )
    logger.info("%d of %d crops hold a face by %s", len(labels.rows), len(crops), teacher.weights.name)
    return labels


def _label(crops: NDArray[np.uint8], teacher: DetectorTeacher) -> Labels:
    finder = Finder(teacher, decoder_of(teacher.spec.decode), _RULES, _AT_ONCE)
    rows, boxes, landmarks = [], [], []
    for start in range(0, len(crops), _AT_ONCE):
        photos = [
            cv2.copyMakeBorder(one, *[_BORDER] * 4, cv2.BORDER_REPLICATE) for one in crops[start : start + _AT_ONCE]
        ]
        if teacher.spec.channel_order == "bgr":
            photos = [photo[..., ::-1] for photo in photos]
        for row, faces in enumerate(finder.find(photos), start):
            if not len(faces):
                continue
            marks = faces.landmarks - _BORDER  # (F, 5, 2)
            apart = np.linalg.norm(marks - TEMPLATE, axis=2).mean(axis=1)
            best = int(apart.argmin())
            if apart[best] <= _FARTHEST:
                rows.append(row)
                boxes.append(faces.boxes[best] - _BORDER)
                landmarks.append(marks[best])
    return Labels(np.array(rows, np.int64), np.array(boxes, np.float32), np.array(landmarks, np.float32))
