"""The detector's objective: answer cell by cell as a trained detector does where a face is known to be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .detector import STRIDES
from .scenes import Scenes

_MIN_SCORE_LEARNED = 0.3  # a cell's box and landmarks are learned above this score
_MIN_SCORE_FOUND = 0.5  # the teacher finds a face from this score on
_MAX_LANDMARK_GAP = 0.4  # between the teacher's landmarks and the known ones, divided by the distance between the eyes
_MIN_EYE_DISTANCE = 8.0  # pixels; smaller faces are weighted as if their eyes were this far apart


def cells(size: int) -> tuple[Tensor, Tensor]:
    """(P, 2) column and row, and (P,) stride of every cell of a square image, in the order of `FaceDetector`."""
    places, strides = [], []
    for stride in STRIDES:
        line = torch.arange(size // stride, dtype=torch.float32)
        row, column = torch.meshgrid(line, line, indexing="ij")
        places.append(torch.stack([column, row], -1).view(-1, 2))
        strides.append(torch.full((len(places[-1]),), float(stride)))
    return torch.cat(places), torch.cat(strides)


def decode(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Decode (N, P, 15) to boxes (N, P, 4) and landmarks (N, P, 5, 2) in pixels, as runtime/faces/detectors.py does."""
    places, strides = cells(size)
    stride = strides[:, None]
    middle = (places + values[..., 1:3]) * stride
    half = torch.exp(values[..., 3:5].clamp(max=6)) * stride / 2
    landmarks = (values[..., 5:].unflatten(-1, (5, 2)) + places[:, None]) * strides[:, None, None]
    return torch.cat([middle - half, middle + half], -1), landmarks


@dataclass(frozen=True)
class Answers:
    """A teacher's answers for a batch of images, checked against the known faces.

    Attributes:
        scores: (N, P) float32, 0 to 1; 0 outside the known faces.
        counts: (N, P) bool: cells whose score is learned: all except those of upright faces that the teacher missed.
        boxes: (N, P, 4) float32, pixels.
        landmarks: (N, P, 5, 2) float32, pixels.
        trusted: (N, P) bool: cells whose box and landmarks are learned.
    """

    scores: Tensor
    counts: Tensor
    boxes: Tensor
    landmarks: Tensor
    trusted: Tensor


def check_answers(raw: Tensor, scenes: Scenes, size: int) -> Answers:
    """Check a teacher's answers against the known faces.

    Args:
        raw: (N, P, 15) float32 of the teacher, with scores from 0 to 1.
        scenes: the images and their known faces.
        size: side of the images, pixels.
    """
    places, strides = cells(size)
    boxes, landmarks = decode(raw, size)
    known_boxes = scenes.boxes[:, :, None]  # (N, F, 1, 4)
    middle = (places + 0.5) * strides[:, None]  # (P, 2)
    within = ((middle >= known_boxes[..., :2]) & (middle <= known_boxes[..., 2:])).all(-1)
    within &= (scenes.present | scenes.cut)[..., None]  # (N, F, P)
    known_landmarks = scenes.landmarks[:, :, None]  # (N, F, 1, 5, 2)
    across = known_landmarks[..., 1, :] - known_landmarks[..., 0, :]  # (N, F, 1, 2): from eye to eye
    gap = (landmarks[:, None] - known_landmarks).norm(dim=-1).mean(-1) / across.norm(dim=-1)  # (N, F, P)
    scores = raw[..., 0] * within.any(dim=1)
    accurate = (within & (gap < _MAX_LANDMARK_GAP)).any(dim=1)
    best = (raw[:, None, :, 0] * within).amax(-1, keepdim=True)  # (N, F, 1)
    upright = across[..., 0] > across[..., 1].abs()
    missed = scenes.present[..., None] & upright & (best < _MIN_SCORE_FOUND)
    counts = ~(within & missed).any(dim=1)
    return Answers(scores, counts, boxes, landmarks, accurate & counts & (scores > _MIN_SCORE_LEARNED))


def detection_loss(values: Tensor, answers: Answers, size: int, landmark_weight: float) -> dict[str, Tensor]:
    """Compute the loss and its parts.

    Args:
        values: (N, P, 15) float32, of `FaceDetector`.
        answers: the teacher's checked answers for the same images.
        size: side of the images, pixels.
        landmark_weight: weight of the landmarks; scores and boxes have 2.
    Returns:
        `loss`; `score`, cross entropy weighted by the error (quality focal loss, Li et al. 2020, with an exponent of
        1); `box`, 1 - GIoU; `landmarks`, mean distance (x plus y), divided by the distance between the eyes.
    """
    number = answers.trusted.sum().clamp(min=1)
    plain = functional.binary_cross_entropy_with_logits(values[..., 0], answers.scores, reduction="none")
    error = (torch.sigmoid(values[..., 0]) - answers.scores).abs()
    score = (plain * error * answers.counts).sum() / number
    boxes, landmarks = (x[answers.trusted] for x in decode(values, size))
    weights = answers.scores[answers.trusted] / number
    box = ((1 - _giou(boxes, answers.boxes[answers.trusted])) * weights).sum()
    targets = answers.landmarks[answers.trusted]  # (K, 5, 2)
    eyes = (targets[:, 0] - targets[:, 1]).norm(dim=-1).clamp(min=_MIN_EYE_DISTANCE)
    marks = ((landmarks - targets).abs().sum(-1).mean(-1) / eyes * weights).sum()
    loss = 2 * score + 2 * box + landmark_weight * marks
    return {"loss": loss, "score": score, "box": box, "landmarks": marks}


def _giou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Source: Rezatofighi et al. 2019, Generalized Intersection over Union."""
    shared = (
        (torch.minimum(boxes_a[:, 2:], boxes_b[:, 2:]) - torch.maximum(boxes_a[:, :2], boxes_b[:, :2]))
        .clamp(min=0)
        .prod(-1)
    )
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes_a, boxes_b)]
    union = areas[0] + areas[1] - shared
    hull = (torch.maximum(boxes_a[:, 2:], boxes_b[:, 2:]) - torch.minimum(boxes_a[:, :2], boxes_b[:, :2])).prod(-1)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
