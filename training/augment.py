"""Augment a whole batch as tensors. One random generator decides everything, so that a run can be repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from .jpeg import compress


@dataclass(frozen=True)
class Augmentation:
    """Strength of each change; 0 leaves it out.

    Attributes:
        flip: probability of a mirror image.
        rotation: degrees, standard deviation.
        scale: standard deviation of the logarithm of the size.
        shift: standard deviation of the position, as a share of the width.
        colour: standard deviation of brightness, contrast and each channel's gain.
        grey: probability of a grey image.
        blur: probability of a blur.
        downscale: probability of shrinking and enlarging the image.
        noise: grey levels, standard deviation.
        occlusion: probability of a rectangle of one colour.
        mixture: probability that every image of a batch is a mixture of two.
        jpeg: probability of JPEG artefacts, quality 30 to 95. At 0, the default, it draws no random numbers, so that
            older runs resume with the same numbers.
    """

    flip: float = 0.5
    rotation: float = 5.0
    scale: float = 0.05
    shift: float = 0.02
    colour: float = 0.15
    grey: float = 0.1
    blur: float = 0.15
    downscale: float = 0.15
    noise: float = 4.0
    occlusion: float = 0.15
    mixture: float = 0.5
    jpeg: float = 0.0


def augment(images: Tensor, how: Augmentation, size: int, rng: Generator) -> Tensor:
    """Augment every image differently and resize it.

    Args:
        images: (N, 3, S, S) uint8 or float, 0..255.
        how: strength of each change.
        size: side of the result, pixels.
        rng: random generator of the device in use (training/device.py).
    Returns:
        (N, 3, size, size) float32, 0..255.
    """
    x = repaint(_warp(images.float(), how, size, rng), how, rng)
    if how.mixture and float(torch.rand((), generator=rng)) < how.mixture:
        share = torch.rand(len(x), 1, 1, 1, generator=rng) * 0.5
        x = x * (1 - share) + x[torch.randperm(len(x), generator=rng)] * share
    return x.clamp_(0, 255)


def repaint(x: Tensor, how: Augmentation, rng: Generator) -> Tensor:
    """Change colours, sharpness and noise as a camera or a file does; no pixel moves.

    Args:
        x: (N, 3, S, S) float32, 0..255.
        how: strength of each change.
        rng: random generator of the device in use.
    Returns:
        (N, 3, S, S) float32, not clipped to 0..255.
    """
    x = _colour(x, how, rng)
    x = _soften(x, how, rng)
    if how.occlusion:
        x = _occlude(x, how.occlusion, rng)
    if how.noise:
        level = torch.rand(len(x), 1, 1, 1, generator=rng) * 2 * how.noise
        x = x + torch.randn(x.shape, generator=rng) * level
    if how.jpeg:
        quality = 30 + 65 * torch.rand(len(x), generator=rng)
        x = torch.where(_chance(len(x), how.jpeg, rng), compress(x, quality), x)
    return x


def _chance(n: int, p: float, rng: Generator) -> Tensor:
    """(n, 1, 1, 1) bool."""
    return (torch.rand(n, generator=rng) < p).view(-1, 1, 1, 1)


def _warp(x: Tensor, how: Augmentation, size: int, rng: Generator) -> Tensor:
    """Mirror, rotate, scale, shift and resize in one sampling."""
    n = len(x)
    angle = torch.randn(n, generator=rng) * math.radians(how.rotation)
    scale = torch.exp(torch.randn(n, generator=rng) * how.scale)
    mirror = torch.where(torch.rand(n, generator=rng) < how.flip, -1.0, 1.0)
    shift = torch.randn(n, 2, generator=rng) * 2 * how.shift
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    if size < x.shape[-1]:
        x = functional.interpolate(x, size=(size, size), mode="area")  # average first against aliasing
    grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _colour(x: Tensor, how: Augmentation, rng: Generator) -> Tensor:
    n = len(x)
    gain = torch.exp(torch.randn(n, 1, 1, 1, generator=rng) * how.colour)
    tint = torch.exp(torch.randn(n, 3, 1, 1, generator=rng) * how.colour / 3)
    light = torch.randn(n, 1, 1, 1, generator=rng) * 255 * how.colour / 2
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = (x - mean) * gain + mean * tint + light
    return torch.where(_chance(n, how.grey, rng), x.mean(dim=1, keepdim=True).expand_as(x), x)


def _soften(x: Tensor, how: Augmentation, rng: Generator) -> Tensor:
    n, size = len(x), x.shape[-1]
    if how.blur:
        soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
        x = torch.where(_chance(n, how.blur, rng), soft, x)
    if how.downscale:
        small = int(size * (0.35 + 0.45 * float(torch.rand((), generator=rng))))
        low = functional.interpolate(x, size=(small, small), mode="area")
        low = functional.interpolate(low, size=(size, size), mode="bilinear", align_corners=False)
        x = torch.where(_chance(n, how.downscale, rng), low, x)
    return x


def _occlude(x: Tensor, p: float, rng: Generator) -> Tensor:
    n, size = len(x), x.shape[-1]
    centre = torch.rand(n, 2, generator=rng) * size
    half = (0.05 + 0.15 * torch.rand(n, 2, generator=rng)) * size
    at = torch.arange(size)
    inside_y = (at[None] - centre[:, :1]).abs() < half[:, :1]  # (N, S)
    inside_x = (at[None] - centre[:, 1:]).abs() < half[:, 1:]
    mask = inside_y[:, None, :, None] & inside_x[:, None, None, :] & _chance(n, p, rng)
    return torch.where(mask, torch.rand(n, 3, 1, 1, generator=rng) * 255, x)
