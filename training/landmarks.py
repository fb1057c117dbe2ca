"""A network that looks once more at a face alone: five landmarks and how sure they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbones import ACTIVATIONS, Bottleneck, conv

SIDE = 96  # pixels of the square that the network sees
POINTS = 5  # eyes, nose, mouth corners, left first as seen in the square
VALUES = 3 * POINTS  # x and y of each, pixels of the square; then how far each may be away
_STRIDE = 8
_PER_POINT = 4  # score, x, y and doubt of each cell for each landmark
_EYE_DISTANCE = 24.0  # pixels of the square, about; the scale of errors


def normalise(images: Tensor) -> Tensor:
    """Map (N, 3, S, S) from 0..255 to -1..1."""
    return torch.sub(images.float(), 127.5).div_(127.5)


class LandmarkNet(nn.Module):
    """(N, 3, 96, 96), -1..1, RGB, to (N, 15).

    The first ten values are x and y of each landmark in pixels of the square; pixel centres are whole numbers. The last
    five are the logarithms of the expected distance to the true place, in eye distances.

    Each cell of a 12x12 map proposes a place for each landmark and a score. The answer is the mean of the proposals,
    weighted by the softmax of the scores: as exact as a regression near the landmark, and blind to the rest.

    Args:
        width: multiplies the numbers of channels.
    Source: the weighted mean of places is integral regression, Sun et al. 2018, arXiv:1711.08229.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        act = ACTIVATIONS["relu"]
        stem, early, middle, deep = (int(channels * width) for channels in (16, 24, 64, 96))
        self.early = nn.Sequential(
            conv(3, stem, 3, 2, 1, act),
            Bottleneck(stem, early, 2, 2 * stem, act),
            Bottleneck(early, early, 1, 2 * early, act),
            Bottleneck(early, middle, 2, 4 * early, act),
            *(Bottleneck(middle, middle, 1, 3 * middle, act) for _ in range(3)),
        )
        self.context = nn.Sequential(
            Bottleneck(middle, deep, 2, 3 * middle, act),
            *(Bottleneck(deep, deep, 1, 2 * deep, act) for _ in range(3)),
            conv(deep, middle, 1, 1, 1, None),
        )
        self.late = Bottleneck(middle, middle, 1, 3 * middle, act)
        self.head = nn.Conv2d(middle, POINTS * _PER_POINT, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        cells = torch.arange(SIDE // _STRIDE) * _STRIDE + (_STRIDE - 1) / 2
        grid = torch.stack(torch.meshgrid(cells, cells, indexing="xy"))  # (2, 12, 12)
        self.register_buffer("centres", grid.flatten(1), persistent=False)  # (2, 144)

    def forward(self, images: Tensor) -> Tensor:
        x = self.early(images)
        x = self.late(x + functional.interpolate(self.context(x), scale_factor=2, mode="nearest"))
        maps = self.head(x).reshape(-1, POINTS, _PER_POINT, self.centres.shape[1])  # (N, 5, 4, 144)
        weights = maps[:, :, :1].softmax(dim=-1)
        places = maps[:, :, 1:3] * _STRIDE + self.centres
        points = (weights * places).sum(dim=-1)  # (N, 5, 2)
        doubts = (weights[:, :, 0] * maps[:, :, 3]).sum(dim=-1)  # (N, 5)
        return torch.cat([points.flatten(1), doubts], 1)


def landmark_loss(values: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
    """The loss and its parts for one batch.

    Args:
        values: (N, 15), answers of the network.
        landmarks: (N, 5, 2), true places, pixels of the square.
    """
    points, doubts = values[:, : 2 * POINTS].unflatten(1, (POINTS, 2)), values[:, 2 * POINTS :]
    errors = (points - landmarks).square().sum(dim=-1).add(1e-4).sqrt() / _EYE_DISTANCE  # (N, 5)
    # Laplace's likelihood teaches the doubt, with the errors as they are.
    doubt = (errors.detach() * torch.exp(-doubts) + doubts).mean()
    error = errors.mean()
    return {"loss": 10 * error + 0.1 * doubt, "error": error, "doubt": doubt}
