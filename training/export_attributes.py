#!/usr/bin/env python3
"""Export an attribute network: python -m training.export_attributes runs/attributes/last.pt models/mine.onnx

Writes the averaged weights as an ONNX file, with weights in FP16, and its model file in the same folder
(models/mine.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.engines.parity import reference_embeddings, synthetic_crops

from .attributes import AGES, VALUES, AttributeNet
from .backbones import normalise
from .export import NORMALISED, SIZE, ExportedNetwork, run_export, trace_to_onnx, write_network
from .sampling import input_size
from .state import read_checkpoint

LARGEST_GAP = 1e-4  # of the unit vector of all probabilities, ONNX to PyTorch
LARGEST_HALF_GAP = 0.02  # the same, FP16 weights to FP32 weights

_FACTS = {
    **{"task": "attributes", "input_name": "input", "output_name": "attributes"},
    **{"size": SIZE, **NORMALISED, "dimension": VALUES},
}


class Probabilities(nn.Module):
    """The network with probabilities instead of logits, (N, 102).

    Crops are averaged down to the side that the network has learned from, as in training. ONNX has no such operator for
    sides that do not divide each other, so that a matrix for the rows and one for the columns do it.

    Args:
        network: the network.
        side: side of the images that it has learned from, pixels.
    """

    def __init__(self, network: AttributeNet, side: int = SIZE) -> None:
        super().__init__()
        self.network = network
        average = functional.interpolate(torch.eye(SIZE)[None, None], size=(side, SIZE), mode="area")[0, 0]
        self.register_buffer("rows", average)  # (side, 112)
        self.register_buffer("columns", average.T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        values = self.network(self.rows @ images @ self.columns)
        return torch.cat([values[:, :AGES].softmax(dim=1), torch.sigmoid(values[:, AGES:])], 1)


def export(checkpoint: Path, target: Path) -> ExportedNetwork:
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
    crops = synthetic_crops(SIZE)
    with torch.no_grad():
        expected = nn.functional.normalize(model(normalise(torch.from_numpy(crops).permute(0, 3, 1, 2)))).numpy()
    return write_network(
        checkpoint,
        target,
        full,
        _FACTS,
        samples=int(content["samples"]),
        answer=lambda spec, file: reference_embeddings(spec, file, crops),
        expected=expected,
        largest_gaps=(LARGEST_GAP, LARGEST_HALF_GAP),
    )


if __name__ == "__main__":
    run_export(__doc__, export)
