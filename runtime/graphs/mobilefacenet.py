"""Generate a MobileFaceNet as ONNX with seeded random weights. Its embeddings cannot identify a person.

Tests, benchmarks and a demo without trained weights use it: it does the work of a real network, without download or
licence.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..files import write_durable

if TYPE_CHECKING:
    import onnx

_SLOPE = 0.25  # of every PReLU, the usual value at the start of training
_OPSET = 17
_IR_VERSION = 8

# Mean and variance of a PReLU's output for a standard normal input.
_ACTIVE_MEAN = (1 - _SLOPE) / math.sqrt(2 * math.pi)
_ACTIVE_VARIANCE = (1 + _SLOPE**2) / 2 - _ACTIVE_MEAN**2

# (expanded channels, channels, blocks, stride of the first block)
_STAGES = {
    "128": ((128, 64, 5, 2), (256, 128, 1, 2), (256, 128, 6, 1), (512, 128, 1, 2), (256, 128, 2, 1)),
    "512": (
        (256, 128, 1, 2),
        (256, 128, 4, 1),
        (512, 256, 1, 2),
        (512, 256, 6, 1),
        (1024, 256, 1, 2),
        (256, 256, 2, 1),
    ),
}
_STEM = {"128": 64, "512": 128}


def generate(path: Path, *, form: str, seed: int) -> None:
    """Write a MobileFaceNet with random weights and with BatchNorm folded into the convolutions.

    The input `input` is (N, 3, 112, 112) float32, (x - 127.5) / 127.5; the output `embedding` is (N, 128) or (N, 512)
    float32, not normalised. The same seed gives the same bytes.

    Weights are scaled (He) so that activations keep their size through the layers, and biases centre them. In a deep
    random network without that, means add up and all images get the same output.

    Args:
        path: the ONNX file to write; replaced if it exists.
        form: "128" is the network of the paper, with 993,344 parameters. "512" is twice as wide, with the block counts
            (1, 4, 6, 2) of InsightFace's w600k_mbf and about its size, 3,396,608 parameters.
        seed: 0 <= seed < 2**32.
    Raises:
        ConfigError: the form is unknown, or the seed is out of range.
        DiskFullError, StorageError: the file cannot be written.
    Source: MobileFaceNets, arXiv:1804.07573, table 1; InsightFace, arcface_torch/backbones/mobilefacenet.py.
    """
    import onnx
    from onnx import TensorProto, helper

    if form not in _STAGES or not 0 <= seed < 2**32:
        raise ConfigError(
            f"MobileFaceNet cannot be generated with form={form!r}, seed={seed!r}; expected: form "
            f"{' or '.join(map(repr, _STAGES))}, 0 <= seed < 2**32"
        )
    net = _Net(seed)
    net.build(form)
    graph = helper.make_graph(
        net.nodes,
        f"mobilefacenet-{form}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", int(form)])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    model.producer_name = "facemill"
    model.doc_string = f"random weights, form {form}, seed {seed}: identifies nobody"
    onnx.checker.check_model(model)
    write_durable(path, model.SerializeToString(deterministic=True), "the model", shared=True, wait=True)


class _Net:
    """The nodes and weights so far, and statistics of the tensor that the next layer takes."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.RandomState(seed)  # NumPy never changes its stream; that of default_rng may change
        self._top = "input"
        self._channels = 3
        self._mean, self._variance = 0.0, 1.0  # expected values of each channel

    def build(self, form: str) -> None:
        """Append every layer."""
        self._conv(_STEM[form], kernel=3, stride=2, pad=1)
        self._conv(_STEM[form], kernel=3, pad=1, groups=64)
        for expanded, channels, blocks, stride in _STAGES[form]:
            for block in range(blocks):
                self._bottleneck(expanded, channels, stride if block == 0 else 1)
        self._conv(512)
        self._conv(512, kernel=7, groups=512, active=False)
        if form == "128":
            self._conv(128, active=False)
            self._append("Flatten", [self._top], "embedding")
        else:
            self._append("Flatten", [self._top], "flat")
            self._append("Gemm", ["flat", *self._draw("fc", (512, 512))], "embedding", transB=1)

    def _bottleneck(self, expanded: int, channels: int, stride: int) -> None:
        """Append a 1x1 to widen, a 3x3 per channel, a 1x1 to narrow; add the input if the shape is the same."""
        source, residual = self._top, stride == 1 and channels == self._channels
        self._conv(expanded)
        self._conv(expanded, kernel=3, stride=stride, pad=1, groups=expanded)
        self._conv(channels, active=False, gain=0.5 if residual else 1.0)
        if residual:
            self._append("Add", [source, self._top], f"add{len(self.nodes)}")

    def _conv(
        self,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        active: bool = True,
        gain: float = 1.0,
    ) -> None:
        """Append a convolution and, if active, its PReLU."""
        name = f"conv{len(self.nodes)}"
        weights = self._draw(name, (channels, self._channels // groups, kernel, kernel), gain)
        self._append(
            "Conv",
            [self._top, *weights],
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=groups,
        )
        self._channels = channels
        self._mean, self._variance = 0.0, 1.0
        if active:
            slope = self._store(f"{name}.slope", np.full((channels, 1, 1), _SLOPE))
            self._append("PRelu", [name, slope], f"{name}.prelu")
            self._mean, self._variance = _ACTIVE_MEAN, _ACTIVE_VARIANCE

    def _draw(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> list[str]:
        """Draw weights that keep the variance of the input, and a bias that removes its mean."""
        fan_in = math.prod(shape[1:])
        weight = self._random.standard_normal(shape) * (gain / math.sqrt(fan_in * self._variance))
        bias = -self._mean * weight.reshape(shape[0], fan_in).sum(axis=1)
        return [self._store(f"{name}.weight", weight), self._store(f"{name}.bias", bias)]

    def _store(self, name: str, array: NDArray[np.float64]) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def _append(self, op: str, inputs: list[str], output: str, **attributes: object) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        self._top = output
