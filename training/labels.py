"""Label the face of each crop by a trained detector: box and landmarks. Crops without a face are left out."""

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

# A detector's landmarks vary by half a pixel with the image size; the mean of several sizes is steadier.
_RULES = FindRules(views=(View(96, 0.5), View(128, 0.5), View(160, 0.5)), retries=())
_BORDER = 28  # pixels of the crop's edge repeated around it: detectors are trained on whole heads
_MAX_TEMPLATE_GAP = 8.0  # pixels, mean distance of landmarks to the template of the crop
_BATCH = 64


@dataclass(frozen=True)
class Labels:
    """The faces of a set of crops.

    Attributes:
        rows: (n,) int64, the crops that show a face.
        boxes: (n, 4) float32, left, top, right, bottom in pixels of the crop; may extend beyond it.
        landmarks: (n, 5, 2) float32, pixels of the crop.
    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, boxes and landmarks on the run's device."""
        device = torch.get_default_device()
        rows, boxes, landmarks = (torch.from_numpy(x).to(device) for x in (self.rows, self.boxes, self.landmarks))
        return rows, boxes, landmarks


def label_crops(
    crops: NDArray[np.uint8], key: str, teacher: DetectorTeacher, cache: Path, rules: FindRules = _RULES
) -> Labels:
    """Label all crops, once per cache folder.

    Args:
        crops: (N, S, S, 3) uint8 RGB, aligned to the ArcFace template.
        key: result of `crops_key`, which identifies the crops.
        teacher: detector that labels them.
        cache: folder that keeps the labels for the next run.
        rules: the views in which the teacher looks.
    Raises:
        ValueError: the teacher finds no face in any crop.
    """
    cache_key = f"{key} {crops.shape} {rules!s}".encode() + teacher.weights.read_bytes()
    path = cache / f"labels-{hashlib.sha256(cache_key).hexdigest()[:16]}.npz"
    if not path.exists():
        logger.info("labelling %d crops by %s, once for this run's folder", len(crops), teacher.weights.name)
        cache.mkdir(parents=True, exist_ok=True)
        labels = _label(crops, teacher, rules)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, rows=labels.rows, boxes=labels.boxes, landmarks=labels.landmarks)
        partial.rename(path)
    with np.load(path) as file:
        labels = Labels(file["rows"], file["boxes"], file["landmarks"])
    if not len(labels.rows):
        raise ValueError(
            f"{teacher.weights} finds no face in {len(crops)} crops; expected: faces aligned to ArcFace's template"
        )
    logger.info("%d of %d crops show a face by %s", len(labels.rows), len(crops), teacher.weights.name)
    return labels


def _label(crops: NDArray[np.uint8], teacher: DetectorTeacher, rules: FindRules) -> Labels:
    finder = Finder(teacher, decoder_of(teacher.spec.decode), rules, _BATCH)
    rows, boxes, landmarks = [], [], []
    for start in range(0, len(crops), _BATCH):
        photos = [
            cv2.copyMakeBorder(crop, *[_BORDER] * 4, cv2.BORDER_REPLICATE) for crop in crops[start : start + _BATCH]
        ]
        if teacher.spec.channel_order == "bgr":
            photos = [photo[..., ::-1] for photo in photos]
        for row, faces in enumerate(finder.find(photos), start):
            if not len(faces):
                continue
            marks = faces.landmarks - _BORDER  # (F, 5, 2)
            gaps = np.linalg.norm(marks - TEMPLATE, axis=2).mean(axis=1)
            best = int(gaps.argmin())
            if gaps[best] <= _MAX_TEMPLATE_GAP:
                rows.append(row)
                boxes.append(faces.boxes[best] - _BORDER)
                landmarks.append(marks[best])
    return Labels(np.array(rows, np.int64), np.array(boxes, np.float32), np.array(landmarks, np.float32))
