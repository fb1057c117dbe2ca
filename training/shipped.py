"""Begin a run from weights that ship: from a model file and its ONNX file, without the checkpoint that made them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights

_SAME = 1e-6


def take_shipped(network: nn.Module, model_file: Path, images: Tensor) -> None:
    """Give a network the weights of a shipped model of the same shape.

    An exported file has its batch norms folded into the convolutions. Here each batch norm gets the mean and the
    variance that it meets in some photos, and the scale and offset that undo them, so that the network answers like the
    file both when it is used and when it is trained.

    Args:
        network: its convolutions run in the same order as those of the file.
        model_file: facemill's model file (TOML), such as models/facemill-512.toml.
        images: (N, 3, S, S), some photos as the network takes them; N of a few dozen.
    Raises:
        ModelError: the model file or its weights cannot be read.
        ValueError: the network has another shape.
    """
    spec = load_spec(str(model_file))
    takes_grey_levels = spec.std == (1.0, 1.0, 1.0)  # then the export has divided the first weights by 255
    stored = list(_convolutions(onnx.load(resolve_weights(spec))))
    network.eval()
    layers = _in_order(network, images[:1])
    shapes = [tuple(weight.shape) for weight, _ in stored], [tuple(conv.weight.shape) for conv, _ in layers]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{model_file} has {len(shapes[0])} convolutions that do not fit the {len(shapes[1])} of this network; "
            f"expected: the settings with which it was trained, or another start=..."
        )
    with torch.no_grad():
        for number, ((weight, bias), (conv, norm)) in enumerate(zip(stored, layers, strict=True)):
            conv.weight.copy_(weight * 255 if number == 0 and takes_grey_levels else weight)
            if norm is None:
                if conv.bias is not None:
                    conv.bias.copy_(bias)
                continue
            if conv.bias is not None:
                conv.bias.zero_()
            norm.running_mean.zero_()  # type: ignore[union-attr, operator]
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr, operator]
            norm.weight.fill_(1.0)
            norm.bias.copy_(bias)
        _measure_norms(network, images)


def _convolutions(model: onnx.ModelProto) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution of a file, in the order of its nodes."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]].astype(np.float32)
        if node.op_type == "Conv":
            weight = np.array(values[node.input[1]], np.float32)
            bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight))
            yield torch.from_numpy(weight), torch.from_numpy(np.array(bias, np.float32))


def _in_order(network: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """The convolutions in the order in which they run, each with the batch norm behind it."""
    layers: list[tuple[nn.Conv2d, nn.BatchNorm2d | None]] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d):
            layers.append((module, None))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1] = layers[-1][0], module

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return layers


def _measure_norms(network: nn.Module, images: Tensor) -> None:
    """Let each batch norm expect what it meets, without changing what it answers."""

    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False).clamp_min(_SAME)
        module.running_mean.copy_(mean)  # type: ignore[union-attr, operator]
        module.running_var.copy_(variance)  # type: ignore[union-attr, operator]
        module.bias.add_(mean)
        module.weight.copy_((variance + module.eps).sqrt())

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
