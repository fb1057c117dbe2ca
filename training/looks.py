"""Pictures with known faces seen once more: another size, the mirror, a picture within another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator
from torch.nn import functional

from .scenes import MIRRORED, Scenes


@dataclass(frozen=True)
class Look:
    """A way to see pictures once more.

    Attributes:
        size: side of what is seen, pixels.
        mirror: whether it is the mirror image.
        share: side of the picture in it, 1 or less; around it is one colour.
        left, top: where, as parts of the free space.
    """

    size: int
    mirror: bool = False
    share: float = 1.0
    left: float = 0.0
    top: float = 0.0

    @classmethod
    def draw(cls, sizes: Sequence[int], nested: float, rng: Generator) -> Look:
        """One of these sizes; this share of looks sees a picture within another, down to a quarter of its side."""
        at = torch.rand(6, generator=rng).tolist()
        share = math.exp(at[3] * math.log(0.25)) if at[2] < nested else 1.0
        return cls(sizes[int(at[0] * len(sizes))], at[1] < 0.5, share, at[4], at[5])


def look_again(scenes: Scenes, look: Look, rng: Generator) -> Scenes:
    """The same pictures seen otherwise: other pictures to a detector, for a tenth of the work of composing."""
    n, side = len(scenes.images), max(1, round(look.size * look.share))
    factor = side / scenes.images.shape[-1]
    images = functional.interpolate(
        scenes.images, size=(side, side), mode="bilinear", align_corners=False, antialias=factor < 1
    )
    boxes, landmarks = scenes.boxes * factor, (scenes.landmarks + 0.5) * factor - 0.5
    if look.mirror:
        images = images.flip(-1)
        boxes = torch.stack([side - boxes[..., 2], boxes[..., 1], side - boxes[..., 0], boxes[..., 3]], -1)
        landmarks = torch.stack([side - 1 - landmarks[..., 0], landmarks[..., 1]], -1)[:, :, MIRRORED]
    if side < look.size:
        left, top = (int((look.size - side) * part) for part in (look.left, look.top))
        black = torch.rand(n, 1, 1, 1, generator=rng) < 0.4  # as around a photograph that facemill gives a border
        around = torch.where(black, 0.0, 255 * torch.rand(n, 3, 1, 1, generator=rng))
        whole = around.expand(n, 3, look.size, look.size).clone()
        whole[..., top : top + side, left : left + side] = images
        images = whole
        boxes, landmarks = boxes + torch.tensor([left, top] * 2), landmarks + torch.tensor([left, top])
    return Scenes(images, boxes, landmarks, scenes.there, scenes.cut)
