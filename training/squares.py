"""Draw the squares that a landmark network sees: a face as a first look may place it, turned, moved, over anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from runtime.faces.align import TEMPLATE

from .crops import CROP
from .landmarks import SIDE
from .scenes import MIRRORED


@dataclass(frozen=True)
class SquareRules:
    """How far a first look is from the truth.

    Attributes:
        margin: side of the square in sides of the aligned crop.
        rotation: degrees, standard deviation of most faces.
        turned: share of faces that are turned by any angle up to `most_turned`, because a first look missed it.
        most_turned: degrees.
        scale: standard deviation of the logarithm of the size.
        shift: standard deviation of the position, as a share of the side.
        far: share of faces with three times that scale and shift.
        turned_larger, turned_scale: mean and standard deviation of the logarithm of the size for turned faces. A first
            look takes them for larger than they are.
        turned_shift: standard deviation of the position for turned faces, as a share of the side.
    Source: the residuals of first looks of facemill-det and YuNet at LFW's photos turned by 30 and 45 degrees.
    """

    margin: float = 1.25
    rotation: float = 8.0
    turned: float = 0.35
    most_turned: float = 70.0
    scale: float = 0.08
    shift: float = 0.03
    far: float = 0.25
    turned_larger: float = 0.2
    turned_scale: float = 0.25
    turned_shift: float = 0.07


def draw_squares(
    crops: Tensor, landmarks: Tensor, backdrops: Tensor, rules: SquareRules, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Draw the square of each face.

    Args:
        crops: (N, 3, C, C) uint8 or float, 0..255, aligned to ArcFace's template.
        landmarks: (N, 5, 2), pixels of the crop.
        backdrops: (N, 3, C, C), other crops; they surround some of the faces.
        rules: how far a first look is from the truth.
        rng: random generator of the device in use.
    Returns:
        (N, 3, 96, 96) float32, 0..255; and (N, 5, 2), the landmarks in pixels of the square.
    """
    n = len(crops)
    angle, factor, shift = _draw_places(n, rules, rng)
    mirror = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    # From the square to the crop, both in -1..1: the mirror last, so that it acts on the crop.
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (N, 2, 2)
    move = torch.stack([mirror * shift[:, 0], shift[:, 1]], 1)
    matrix = torch.stack([turn[:, 0] * mirror[:, None], turn[:, 1]], 1)
    images = _render(crops.float(), matrix, move, backdrops.float(), rng)
    centred = (landmarks + 0.5) * (2 / CROP) - 1 - move[:, None]  # (N, 5, 2)
    seen = torch.linalg.solve(matrix[:, None].expand(n, 5, 2, 2), centred)
    seen = torch.where(mirror[:, None, None] < 0, seen[:, MIRRORED], seen)
    return images, (seen + 1) * (SIDE / 2) - 0.5


def plain_squares(crops: Tensor, landmarks: Tensor, degrees: float, margin: float) -> tuple[Tensor, Tensor]:
    """The squares of faces that a first look placed right, but for a turn; for measuring. See `draw_squares`."""
    n, angle = len(crops), math.radians(degrees)
    cos, sin = math.cos(angle) * margin, math.sin(angle) * margin
    matrix = torch.tensor([[cos, -sin], [sin, cos]]).expand(n, 2, 2)
    grid = _grid(matrix, torch.zeros(n, 2))
    images = functional.grid_sample(crops.float(), grid, padding_mode="reflection", align_corners=False)
    centred = (landmarks + 0.5) * (2 / CROP) - 1
    seen = torch.linalg.solve(matrix[:, None].expand(n, 5, 2, 2), centred)
    return images, (seen + 1) * (SIDE / 2) - 0.5


def square_template(margin: float) -> Tensor:
    """(5, 2): the landmarks of ArcFace's template in pixels of the square."""
    return (torch.from_numpy(TEMPLATE).float() + 0.5 - CROP / 2) * (SIDE / (CROP * margin)) + SIDE / 2 - 0.5


def _draw_places(n: int, rules: SquareRules, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Angle in radians, size of the square in crops, and its middle in half crops, of each face."""
    turned = torch.rand(n, generator=rng) < rules.turned
    small = torch.randn(n, generator=rng) * rules.rotation
    wide = (torch.rand(n, generator=rng) * 2 - 1) * rules.most_turned
    strength = torch.where(torch.rand(n, generator=rng) < rules.far, 3.0, 1.0)
    spread = torch.where(turned, rules.turned_scale, rules.scale * strength)
    larger = torch.where(turned, rules.turned_larger, 0.0)
    factor = rules.margin * torch.exp(torch.randn(n, generator=rng) * spread + larger)
    away = torch.where(turned, rules.turned_shift, rules.shift * strength)
    shift = torch.randn(n, 2, generator=rng) * 2 * rules.margin * away[:, None]
    return torch.deg2rad(torch.where(turned, wide, small)), factor, shift


def _render(crops: Tensor, matrix: Tensor, move: Tensor, backdrops: Tensor, rng: Generator) -> Tensor:
    """Sample the squares. What lies outside of a crop is its reflection, another photo, one colour, or black."""
    n = len(crops)
    grid = _grid(matrix, move)
    reflected = functional.grid_sample(crops, grid, padding_mode="reflection", align_corners=False)
    inside = (grid.abs().amax(dim=-1) <= 1)[:, None]  # (N, 1, 96, 96)
    zoom = 0.3 + 0.5 * torch.rand(n, 1, 1, generator=rng)
    elsewhere = _grid(matrix * zoom, torch.rand(n, 2, generator=rng) * 2 - 1)
    other = functional.grid_sample(backdrops, elsewhere, padding_mode="reflection", align_corners=False)
    colour = 255 * torch.rand(n, 3, 1, 1, generator=rng)
    kind = torch.rand(n, 1, 1, 1, generator=rng)
    outside = torch.where(kind < 0.45, reflected, torch.where(kind < 0.75, other, torch.where(kind < 0.9, colour, 0.0)))
    return torch.where(inside, reflected, outside)


def _grid(matrix: Tensor, move: Tensor) -> Tensor:
    theta = torch.cat([matrix, move[:, :, None]], 2)
    return functional.affine_grid(theta, [len(matrix), 3, SIDE, SIDE], align_corners=False)
