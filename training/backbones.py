"""The student networks. runtime/graphs/mobilefacenet.py writes the same shapes and widths as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# t: expansion, c: channels out, n: repeats, s: stride of the first
Row = tuple[int, int, int, int]
CLASSIC: tuple[Row, ...] = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
# InsightFace's w600k_mbf, twice as wide, expands less at the end.
W600K: tuple[Row, ...] = (*CLASSIC[:-1], (1, 128, 2, 1))

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda _: nn.ReLU(inplace=True),
    "relu6": lambda _: nn.ReLU6(inplace=True),
    "prelu": lambda channels: nn.PReLU(channels),
}


class StridedDepthwise(nn.Conv2d):
    """Depthwise convolution with a stride, in FP32: in bfloat16 its backward takes 14 times as long on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def conv(
    c_in: int, c_out: int, kernel: int, stride: int, groups: int, act: Callable[[int], nn.Module] | None
) -> nn.Module:
    """Convolution, batch norm and an optional activation; "same" padding, except for a global kernel."""
    padding = kernel // 2 if kernel < 7 else 0
    kind = StridedDepthwise if stride > 1 and groups == c_in else nn.Conv2d
    layers: list[nn.Module] = [
        kind(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    return nn.Sequential(*layers, *([act(c_out)] if act else []))


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, c_in: int, c_out: int, stride: int, hidden: int, act: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(c_in, hidden, 1, 1, 1, act),
            conv(hidden, hidden, 3, stride, hidden, act),
            conv(hidden, c_out, 1, 1, 1, None),
        )
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class MobileFaceNet(nn.Module):
    """MobileFaceNet: (N, 3, S, S) in -1..1 to (N, D), not normalised.

    Inputs smaller than 112 give a smaller last feature map. It is enlarged to the 7x7 of the global depthwise layer, so
    that training can start with small images.

    Args:
        dimension: D.
        width: multiplies every number of channels.
        rows: the bottlenecks.
        together: channels per group of the second convolution; 1 is depthwise.
        activation: "relu", "relu6" or "prelu".
    Source: Chen et al. 2018, arXiv:1804.07573, table 1.
    """

    def __init__(
        self,
        dimension: int = 512,
        width: float = 1.0,
        rows: Sequence[Row] = CLASSIC,
        activation: str = "relu",
        together: int = 1,
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]

        def wide(channels: int) -> int:
            return int(channels * width)

        channels = wide(64)
        layers = [conv(3, channels, 3, 2, 1, act), conv(channels, channels, 3, 1, channels // together, act)]
        for t, c, n, s in rows:
            for i in range(n):
                layers.append(Bottleneck(channels, wide(c), s if i == 0 else 1, t * channels, act))
                channels = wide(c)
        layers.append(conv(channels, 512, 1, 1, 1, act))
        self.features = nn.Sequential(*layers)
        self.gather = conv(512, 512, 7, 1, 512, None)
        self.embed = nn.Sequential(nn.Conv2d(512, dimension, 1, bias=False), nn.BatchNorm2d(dimension), nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)  # (N, 512, S / 16, S / 16)
        if x.shape[-1] != 7:
            x = nn.functional.interpolate(x, size=(7, 7), mode="bilinear", align_corners=False)
        y: Tensor = self.embed(self.gather(x))  # (N, D)
        return y


def count_parameters(model: nn.Module) -> int:
    """Count the trained parameters."""
    return sum(p.numel() for p in model.parameters())


def build_backbone(name: str, dimension: int, width: float, activation: str) -> nn.Module:
    """Build a student network by name.

    Raises:
        ValueError: the name or the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected: {', '.join(ACTIVATIONS)}")
    from .mamba import MambaFace  # which imports this module

    if name == "mobilefacenet":
        return MobileFaceNet(dimension, width, CLASSIC, activation)
    if name == "w600k_mbf":
        return MobileFaceNet(dimension, 2 * width, W600K, activation, together=2)
    if name == "mamba":
        return MambaFace(dimension, width, activation)
    raise ValueError(f"backbone is {name!r}; expected: mobilefacenet, w600k_mbf or mamba")


def normalise(images_u8: Tensor) -> Tensor:
    """Map (N, 3, S, S) from 0..255 to -1..1, the range of every student and of its model file."""
    return torch.sub(images_u8.float(), 127.5).div_(127.5)
