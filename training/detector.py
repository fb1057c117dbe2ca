"""A small anchor-free face detector with five landmarks: YuNet's shape, with one score instead of two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
VALUES = 15  # per cell: score (a logit), box (4), five landmarks (10)
_FIRST_SCORE = 0.01  # share of cells that hold a face; scores start there


def normalise(images: Tensor) -> Tensor:
    """Map (N, 3, H, W) from 0..255 to 0..1, so that black borders equal the padding of a convolution."""
    return images.float() / 255


def _unit(c_in: int, c_out: int, *, last: bool = False) -> nn.Sequential:
    """A pointwise and a depthwise convolution; batch norm and ReLU follow unless it is a head's last unit."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, 1),
        nn.Conv2d(c_out, c_out, 3, padding=1, groups=c_out, bias=last),
    ]
    return nn.Sequential(*layers, *([] if last else [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]))


class FaceDetector(nn.Module):
    """(N, 3, H, W), 0..1, BGR, sides multiples of 32, to (N, P, 15), the cells of strides 8, 16, 32, row by row.

    Args:
        widths: channels after the stem, at stride 4, and from stride 8 on.
    Source: Wu et al. 2023, YuNet: A Tiny Millisecond-level Face Detector, MIR 20(5).
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        stem, middle, wide = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True), _unit(stem, stem)
        )
        self.early = nn.Sequential(_unit(stem, stem), _unit(stem, middle), _unit(middle, middle), _unit(middle, wide))
        self.stages = nn.ModuleList(nn.Sequential(_unit(wide, wide), _unit(wide, wide)) for _ in STRIDES)
        self.neck = nn.ModuleList(_unit(wide, wide) for _ in STRIDES)
        self.heads = nn.ModuleList(
            nn.ModuleList(_unit(wide, values, last=True) for values in (1, 4, 10)) for _ in STRIDES
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for score, _, _ in self.heads:  # type: ignore[misc]
            nn.init.normal_(score[0].weight, std=0.01)
            nn.init.constant_(score[1].bias, torch.logit(torch.tensor(_FIRST_SCORE)).item())

    def levels(self, images: Tensor) -> list[list[Tensor]]:
        """Score, box and landmarks of each stride, as maps: (N, 1 or 4 or 10, H / stride, W / stride)."""
        x = self.early(functional.max_pool2d(self.stem(images), 2))
        maps = []
        for stage in self.stages:
            x = stage(functional.max_pool2d(x, 2))
            maps.append(x)
        above: Tensor | None = None
        joined = []
        for x, join in zip(reversed(maps), reversed(list(self.neck)), strict=True):
            if above is not None:
                x = x + functional.interpolate(above, scale_factor=2, mode="nearest")
            above = join(x)
            joined.append(above)
        return [[head(x) for head in heads] for x, heads in zip(reversed(joined), self.heads, strict=True)]  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        flat = [torch.cat(maps, 1).flatten(2).transpose(1, 2) for maps in self.levels(images)]
        return torch.cat(flat, 1)
