"""Vary composed images with known faces: another size, mirrored, or shrunk into another image."""

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
    """A variation of composed images.

    Attributes:
        size: side of the result, pixels.
        mirror: mirror the image.
        share: side of the image as a share of the result, 1 or less; one colour surrounds it.
        left: space on the left of the image, as a share of the free space.
        top: space above the image, as a share of the free space.
    """

    size: int
    mirror: bool = False
    share: float = 1.0
    left: float = 0.0
    top: float = 0.0

    @classmethod
    def draw(cls, sizes: Sequence[int], nested: float, rng: Generator) -> Look:
        """Draw a look; a share `nested` of looks shrinks the image, down to a quarter of its side."""
        numbers = torch.rand(6, generator=rng).tolist()
        share = math.exp(numbers[3] * math.log(0.25)) if numbers[2] < nested else 1.0
        return cls(sizes[int(numbers[0] * len(sizes))], numbers[1] < 0.5, share, numbers[4], numbers[5])


def look_again(scenes: Scenes, look: Look, rng: Generator) -> Scenes:
    """Vary the images; a detector sees new ones, for a tenth of the cost of composing."""
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
        x, y = (int((look.size - side) * part) for part in (look.left, look.top))
        black = torch.rand(n, 1, 1, 1, generator=rng) < 0.4  # like the border that facemill adds to a photo
        surroundings = torch.where(black, 0.0, 255 * torch.rand(n, 3, 1, 1, generator=rng))
        canvas = surroundings.expand(n, 3, look.size, look.size).clone()
        canvas[..., y : y + side, x : x + side] = images
        images = canvas
        boxes, landmarks = boxes + torch.tensor([x, y] * 2), landmarks + torch.tensor([x, y])
    return Scenes(images, boxes, landmarks, scenes.present, scenes.cut)
