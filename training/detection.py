"""What the detector is asked to do: answer, cell for cell, as a trained detector does where a face is known to be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .detector import STRIDES
from .scenes import Scenes

_FACE = 0.3  # score from which a cell's box and landmarks are learned
_FOUND = 0.5  # score from which a teacher has found a face
_TRUSTED = 0.4  # parts of the distance between the eyes that the teacher's landmarks may be from the known ones
_SMALLEST_EYES = 8.0  # pixels; below, a pixel weighs no more


def cells(size: int) -> tuple[Tensor, Tensor]:
    """(P, 2) column and row, and (P,) stride of every cell of a square picture, as `FaceDetector` orders them."""
    places, strides = [], []
    for stride in STRIDES:
        line = torch.arange(size // stride, dtype=torch.float32)
        row, column = torch.meshgrid(line, line, indexing="ij")
        places.append(torch.stack([column, row], -1).view(-1, 2))
        strides.append(torch.full((len(places[-1]),), float(stride)))
    return torch.cat(places), torch.cat(strides)


def decode(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(N, P, 15) to boxes (N, P, 4) and landmarks (N, P, 5, 2), pixels, as runtime/faces/detectors.py reads YuNet's."""
    places, strides = cells(size)
    stride = strides[:, None]
    middle = (places + values[..., 1:3]) * stride
    half = torch.exp(values[..., 3:5].clamp(max=6)) * stride / 2
    landmarks = (values[..., 5:].unflatten(-1, (5, 2)) + places[:, None]) * strides[:, None, None]
    return torch.cat([middle - half, middle + half], -1), landmarks


@dataclass(frozen=True)
class Answers:
    """What a teacher says of the pictures, checked by what is known of them.

    Attributes:
        scores: (N, P) float32, 0 to 1; 0 where no face is known to be.
        counts: (N, P) bool: cells whose score is to be learned: all but those of an upright face that it overlooked.
        boxes: (N, P, 4) float32, pixels.
        landmarks: (N, P, 5, 2) float32, pixels.
        trusted: (N, P) bool: cells whose box and landmarks are to be learned.
    """

    scores: Tensor
    counts: Tensor
    boxes: Tensor
    landmarks: Tensor
    trusted: Tensor


def check_answers(raw: Tensor, scenes: Scenes, size: int) -> Answers:
    """A teacher's answers as targets.

    Args:
        raw: (N, P, 15) float32 of the teacher, the scores from 0 to 1.
        scenes: the pictures' faces.
        size: side of the pictures.
    """
    places, strides = cells(size)
    boxes, landmarks = decode(raw, size)
    known = scenes.boxes[:, :, None]  # (N, F, 1, 4)
    middle = (places + 0.5) * strides[:, None]  # (P, 2)
    within = ((middle >= known[..., :2]) & (middle <= known[..., 2:])).all(-1)
    within &= (scenes.there | scenes.cut)[..., None]  # (N, F, P)
    wanted = scenes.landmarks[:, :, None]  # (N, F, 1, 5, 2)
    across = wanted[..., 1, :] - wanted[..., 0, :]  # (N, F, 1, 2): from eye to eye
    apart = (landmarks[:, None] - wanted).norm(dim=-1).mean(-1) / across.norm(dim=-1)  # (N, F, P)
    scores = raw[..., 0] * within.any(dim=1)
    right = (within & (apart < _TRUSTED)).any(dim=1)
    best = (raw[:, None, :, 0] * within).amax(-1, keepdim=True)  # (N, F, 1)
    upright = across[..., 0] > across[..., 1].abs()
    overlooked = scenes.there[..., None] & upright & (best < _FOUND)
    counts = ~(within & overlooked).any(dim=1)
    return Answers(scores, counts, boxes, landmarks, right & counts & (scores > _FACE))


def detection_loss(values: Tensor, answers: Answers, size: int, landmark_weight: float) -> dict[str, Tensor]:
    """The loss and its parts.

    Args:
        values: (N, P, 15) float32, of `FaceDetector`.
        answers: of the teacher, for the same pictures.
        size: side of the pictures.
        landmark_weight: of the landmarks, beside 2 for the scores and for the boxes.
    Returns:
        `loss`, `score` (cross entropy, weighted by the error: quality focal loss, Li et al. 2020, with an exponent of
        1), `box` (1 - GIoU), `landmarks` (mean distance, across and down added, in parts of the distance of the eyes).
    """
    number = answers.trusted.sum().clamp(min=1)
    plain = functional.binary_cross_entropy_with_logits(values[..., 0], answers.scores, reduction="none")
    wrong = (torch.sigmoid(values[..., 0]) - answers.scores).abs()
    score = (plain * wrong * answers.counts).sum() / number
    boxes, landmarks = (some[answers.trusted] for some in decode(values, size))
    weights = answers.scores[answers.trusted] / number
    box = ((1 - _giou(boxes, answers.boxes[answers.trusted])) * weights).sum()
    wanted = answers.landmarks[answers.trusted]  # (K, 5, 2)
    eyes = (wanted[:, 0] - wanted[:, 1]).norm(dim=-1).clamp(min=_SMALLEST_EYES)
    marks = ((landmarks - wanted).abs().sum(-1).mean(-1) / eyes * weights).sum()
    loss = 2 * score + 2 * box + landmark_weight * marks
    return {"loss": loss, "score": score, "box": box, "landmarks": marks}


def _giou(one: Tensor, other: Tensor) -> Tensor:
    """Source: Rezatofighi et al. 2019, Generalized Intersection over Union."""
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (one, other)]
    union = areas[0] + areas[1] - shared
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(-1)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
