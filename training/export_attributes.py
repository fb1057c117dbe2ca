#!/usr/bin/env python3
"""Export an attribute network: python -m training.export_attributes runs/attributes/last.pt models/mine.onnx

Writes the averaged weights as an ONNX file, with weights in FP16, and its model file in the same folder
(models/mine.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.errors import ParityError
from runtime.modelspec import load_spec

from .attributes import AGES, VALUES, AttributeNet
from .backbones import normalise
from .export import SIZE, fill_in, halve_weights, run_export, trace_to_onnx
from .sampling import input_size
from .state import read_checkpoint

LARGEST_GAP = 1e-4  # of the unit vector of all probabilities, ONNX to PyTorch
LARGEST_HALF_GAP = 0.02  # the same, FP16 weights to FP32 weights

_MODEL_FILE = """\
name = {name}
title = {title}
file = {file}
input_name = "input"
output_name = "attributes"
size = {size}
channel_order = "rgb"
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]
dimension = {dimension}
task = "attributes"
licence = {licence}
accuracy = {accuracy}
accuracy_source = {accuracy_source}
sha256 = {sha256}
size_bytes = {size_bytes}
"""


@dataclass(frozen=True)
class ExportedAttributes:
    """An exported attribute network, and how close it is to the trained one.

    Attributes:
        size_bytes: size of the ONNX file.
        samples: images that the weights have learned from.
        gap: largest difference of a number, FP32 ONNX to PyTorch.
        half_gap: largest difference of a number, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    half_gap: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: {self.half_gap:.2g}"


class Probabilities(nn.Module):
    """The network with probabilities instead of logits, (N, 102).

    Args:
        network: the network.
        side: side of the images that it has learned from, pixels; crops are resized to it.
    """

    def __init__(self, network: AttributeNet, side: int = SIZE) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, images: Tensor) -> Tensor:
        if self.side != SIZE:
            images = functional.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        values = self.network(images)
        return torch.cat([values[:, :AGES].softmax(dim=1), torch.sigmoid(values[:, AGES:])], 1)


def export(checkpoint: Path, target: Path) -> ExportedAttributes:
    """Write the averaged weights of a checkpoint to `target`, and the model file to the same folder.

    Args:
        checkpoint: checkpoint of training/train_attributes.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is of another kind of network.
        ParityError: the ONNX file does not answer like the network; nothing is written.
    """
    content = read_checkpoint(checkpoint)
    if "taught_gender" not in content["config"]:
        raise ValueError(f"{checkpoint} is of another kind; expected: a checkpoint of training.train_attributes")
    network = AttributeNet(content["config"]["width"])
    network.load_state_dict(content["ema"])
    model = Probabilities(network, input_size(int(content["samples"]), content["config"]["stages"])).eval()
    full = trace_to_onnx(model, (1, 3, SIZE, SIZE), ["attributes"], {"input": {0: "N"}, "attributes": {0: "N"}})
    halved = halve_weights(full).SerializeToString(deterministic=True)
    crops = synthetic_crops(SIZE)
    with torch.no_grad():
        expected = nn.functional.normalize(model(normalise(torch.from_numpy(crops).permute(0, 3, 1, 2)))).numpy()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        halved_file, full_file = Path(folder) / target.name, Path(folder) / "plain"
        halved_file.write_bytes(halved)
        full_file.write_bytes(full.SerializeToString())
        toml_file = halved_file.with_suffix(".toml")
        toml_file.write_text(fill_in(_MODEL_FILE, target, halved, size=SIZE, dimension=VALUES), encoding="utf-8")
        spec = load_spec(str(toml_file))
        full_rows = reference_embeddings(spec, full_file, crops)  # unit rows
        gap = float(np.abs(full_rows - expected).max())
        half_gap = float(np.abs(full_rows - reference_embeddings(spec, halved_file, crops)).max())
        if not (gap <= LARGEST_GAP and half_gap <= LARGEST_HALF_GAP):
            raise ParityError(
                f"the ONNX file of {checkpoint} differs from the network: largest difference {gap:.2g}, expected at "
                f"most {LARGEST_GAP}; of FP16 weights {half_gap:.2g}, expected at most {LARGEST_HALF_GAP}"
            )
        halved_file.replace(target)
        toml_file.replace(target.with_suffix(".toml"))
    return ExportedAttributes(len(halved), int(content["samples"]), gap, half_gap)


if __name__ == "__main__":
    run_export(__doc__, export)
