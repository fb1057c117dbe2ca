"""Apply JPEG's losses to tensors: 8x8 cosine transform, the standard's tables, chroma at half the resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Source: ITU-T T.81, annex K.1, tables K.1 (luminance) and K.2 (chrominance).
_LUMINANCE = """
16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99"""
_CHROMINANCE = (
    """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
"""
    + "99 " * 32
)
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # of RGB
_RGB = torch.linalg.inv(_YCC)


def _table(numbers: str) -> Tensor:
    return torch.tensor([float(n) for n in numbers.split()]).view(8, 8)


def _cosines() -> Tensor:
    """(8, 8) orthonormal: frequency by position."""
    frequency, position = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    rows = torch.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


_TABLES = (_table(_LUMINANCE), _table(_CHROMINANCE))
_DCT = _cosines()


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Compress images as a JPEG file does, and decompress them.

    Args:
        images: (N, 3, S, S) float32 RGB; clipped to 0..255 first.
        quality: (N,) float32, 1..100, on libjpeg's scale.
    Returns:
        (N, 3, S, S) float32, 0..255.
    """
    side = images.shape[-1]
    padding = -side % 16
    x = functional.pad(images.clamp(0, 255), (0, padding, 0, padding), mode="replicate")
    x = torch.einsum("cd,ndhw->nchw", _YCC.to(x.device), x)
    light = _quantise(x[:, :1] - 128, quality, _TABLES[0]) + 128
    colour = _quantise(functional.avg_pool2d(x[:, 1:], 2), quality, _TABLES[1])
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.einsum("cd,ndhw->nchw", _RGB.to(x.device), torch.cat([light, colour], 1))
    return x[..., :side, :side].clamp(0, 255)


def _quantise(x: Tensor, quality: Tensor, table: Tensor) -> Tensor:
    """Round the cosine transform of each 8x8 block of (N, C, H, W) to the table's steps."""
    n, c, height, width = x.shape
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100  # (N,)
    steps = (table.to(x.device) * scale.view(-1, 1, 1)).round().clamp(1, 255).view(n, 1, 1, 1, 8, 8)
    blocks = x.view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)  # (N, C, H / 8, W / 8, 8, 8)
    cosines = _DCT.to(x.device)
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(n, c, height, width)
