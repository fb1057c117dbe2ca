"""What the detector is asked to do: which cells answer for a face, and how far their answers are from it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .detector import STRIDES
from .scenes import Scenes

# Sides of faces, pixels, that a stride answers for; they overlap, so that a face is never between two.
RANGES = {8: (0.0, 48.0), 16: (32.0, 112.0), 32: (80.0, 1e9)}
_NEAR = 0.75  # cells from the middle of a face within which a cell answers for it
_AROUND = 2.0  # and within which it may say what it likes
_FOCUS = 2.0


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
    """(N, P, 15) to boxes (N, P, 4) and landmarks (N, P, 5, 2), pixels, as runtime/images/faces.py reads YuNet's."""
    places, strides = cells(size)
    stride = strides[:, None]
    middle = (places + values[..., 1:3]) * stride
    half = torch.exp(values[..., 3:5].clamp(max=6)) * stride / 2
    landmarks = (values[..., 5:].unflatten(-1, (5, 2)) + places[:, None]) * strides[:, None, None]
    return torch.cat([middle - half, middle + half], -1), landmarks


def assign(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    """Which face each cell answers for.

    Returns:
        (N, P) int64: the face, -1 for none; and (N, P) bool: cells whose score counts.
    """
    places, strides = cells(size)
    middle = (scenes.boxes[..., :2] + scenes.boxes[..., 2:]) / 2  # (N, F, 2)
    side = (scenes.boxes[..., 2:] - scenes.boxes[..., :2]).amax(-1)  # (N, F)
    # Pixel x of a cell's middle is (column + 0.5) * stride.
    apart = (middle[:, :, None] / strides[:, None] - places - 0.5).abs().amax(-1)  # (N, F, P), cells
    low = torch.tensor([RANGES[int(s)][0] for s in strides])
    high = torch.tensor([RANGES[int(s)][1] for s in strides])
    fits = (side[..., None] >= low) & (side[..., None] < high)
    here = scenes.there[..., None]
    apart = torch.where(here & fits, apart, torch.inf)
    nearest, face = apart.min(dim=1)  # (N, P)
    face = torch.where(nearest <= _NEAR, face, -1)
    reach = torch.maximum(side[..., None] / strides / 4, torch.tensor(_AROUND))  # other cells upon the face itself
    far = (middle[:, :, None] / strides[:, None] - places - 0.5).abs().amax(-1)
    around = ((here | scenes.cut[..., None]) & (far <= reach)).any(dim=1)
    return face, (face >= 0) | ~around


def detection_loss(values: Tensor, scenes: Scenes, size: int, landmark_weight: float) -> dict[str, Tensor]:
    """The loss and its parts.

    Args:
        values: (N, P, 15) float32, of `FaceDetector`.
        scenes: the pictures' faces.
        size: side of the pictures.
        landmark_weight: of the landmarks, beside 1 for the scores and 2 for the boxes.
    Returns:
        `loss`, `score` (focal cross entropy, a face), `box` (1 - GIoU), `landmarks` (mean distance in parts of the
        distance of the eyes).
    """
    face, counts = assign(scenes, size)
    positive = face >= 0
    number = positive.sum().clamp(min=1)
    target = positive.float()
    plain = functional.binary_cross_entropy_with_logits(values[..., 0], target, reduction="none")
    wrong = (torch.sigmoid(values[..., 0]) - target).abs()
    score = (plain * wrong.pow(_FOCUS) * counts).sum() / number * 4
    boxes, landmarks = decode(values, size)
    picture, cell = positive.nonzero(as_tuple=True)
    which = face[picture, cell]
    box = (1 - _giou(boxes[picture, cell], scenes.boxes[picture, which])).sum() / number
    wanted = scenes.landmarks[picture, which]  # (K, 5, 2)
    eyes = (wanted[:, 0] - wanted[:, 1]).norm(dim=-1).clamp(min=2.0)
    gap = (landmarks[picture, cell] - wanted).abs().sum(-1).mean(-1) / eyes
    marks = gap.sum() / number
    return {"loss": score + 2 * box + landmark_weight * marks, "score": score, "box": box, "landmarks": marks}


def _giou(one: Tensor, other: Tensor) -> Tensor:
    """Source: Rezatofighi et al. 2019, Generalized Intersection over Union."""
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (one, other)]
    union = areas[0] + areas[1] - shared
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(-1)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
