"""A network that answers with the age and the gender of an aligned face: a distribution of ages, and a probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbones import ACTIVATIONS, Bottleneck, conv

AGES = 101  # classes: 0 to 100 years; older people count as 100
VALUES = AGES + 1  # a logit of each age, and the logit of "woman"
_GATHERED = 7  # side of the last feature map of a crop of 112 pixels
_YEARS = 10.0  # an error of the expected age that costs 1


class AttributeNet(nn.Module):
    """(N, 3, S, S), -1..1, RGB, aligned to ArcFace's template, to (N, 102): 101 logits of ages, one of "woman".

    Smaller inputs than 112 pixels give a smaller last feature map. It is enlarged to the 7x7 of the global depthwise
    layer, so that training can start with small images.

    Args:
        width: multiplies the numbers of channels.
    Source: the layers are MobileFaceNet's (Chen et al. 2018, arXiv:1804.07573), narrower.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        act = ACTIVATIONS["relu"]
        stem, early, middle, deep, last = (int(channels * width) for channels in (16, 24, 48, 96, 256))
        self.features = nn.Sequential(
            conv(3, stem, 3, 2, 1, act),
            Bottleneck(stem, early, 2, 2 * stem, act),
            *(Bottleneck(early, early, 1, 3 * early, act) for _ in range(2)),
            Bottleneck(early, middle, 2, 4 * early, act),
            *(Bottleneck(middle, middle, 1, 3 * middle, act) for _ in range(4)),
            Bottleneck(middle, deep, 2, 4 * middle, act),
            *(Bottleneck(deep, deep, 1, 3 * deep, act) for _ in range(3)),
            conv(deep, last, 1, 1, 1, act),
        )
        self.gather = conv(last, last, _GATHERED, 1, last, None)
        self.head = nn.Conv2d(last, VALUES, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)
        if x.shape[-1] != _GATHERED:
            x = functional.interpolate(x, size=(_GATHERED, _GATHERED), mode="bilinear", align_corners=False)
        values: Tensor = self.head(self.gather(x)).flatten(1)
        return values


def expected_age(values: Tensor) -> Tensor:
    """(N, 102), answers of the network, to (N,): the mean of each distribution of ages, years."""
    return values[:, :AGES].softmax(dim=1) @ torch.arange(AGES, dtype=values.dtype)


def age_distribution(ages: Tensor) -> Tensor:
    """The distribution to learn for a known age: a normal one, wider for older people, whose age shows less exactly.

    Args:
        ages: (N,) years; ages above 100 count as 100.
    Returns:
        (N, 101), rows with the sum 1.
    Source: label distribution learning, Geng et al. 2013, doi:10.1109/TPAMI.2013.51.
    """
    centres = ages.float().clamp(0, AGES - 1)[:, None]
    width = 0.6 + 0.04 * centres
    return (-0.5 * ((torch.arange(AGES) - centres) / width).square()).softmax(dim=1)


def attribute_loss(values: Tensor, ages: Tensor, women: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The loss and its parts for one batch.

    Args:
        values: (N, 102), answers of the network.
        ages: (N, 101), distributions of ages to learn.
        women: (N,), probabilities to learn.
        weights: (N,), of the part about ages.
    """
    cross_entropy = -(ages * values[:, :AGES].log_softmax(dim=1)).sum(dim=1)
    years = (expected_age(values) - ages @ torch.arange(AGES, dtype=ages.dtype)).abs()
    age = (weights * (cross_entropy + years / _YEARS)).mean()
    gender = functional.binary_cross_entropy_with_logits(values[:, AGES], women)
    return {"loss": age + 2 * gender, "age": age, "gender": gender, "years": years.detach().mean()}
