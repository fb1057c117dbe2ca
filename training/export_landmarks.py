#!/usr/bin/env python3
"""Export a landmark network: python -m training.export_landmarks runs/landmarks/last.pt models/facemill-landmarks.onnx

Writes the averaged weights of a checkpoint as an ONNX file, in FP16, and its model file in the same folder
(models/facemill-landmarks.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.engines.parity import reference_rows, synthetic_crops

from .export import NORMALISED, ExportedNetwork, run_export, trace_to_onnx, write_network
from .landmarks import SIDE, VALUES, LandmarkNet, normalise
from .state import read_checkpoint

LARGEST_GAP = 0.01  # per number of the answer, ONNX to PyTorch; places are in pixels of the square
LARGEST_HALF_GAP = 0.25  # the same, FP16 weights to FP32 weights

_FACTS = {
    **{"task": "landmarks", "input_name": "input", "output_name": "landmarks"},
    **{"size": SIDE, **NORMALISED, "dimension": VALUES},
}


def export(checkpoint: Path, target: Path) -> ExportedNetwork:
    """Write the averaged weights of a checkpoint to `target`, and the model file to the same folder.

    Args:
        checkpoint: checkpoint of training/train_landmarks.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is of another kind of network.
        ParityError: the ONNX file does not answer like the network; nothing is written.
    """
    content = read_checkpoint(checkpoint)
    if "squares" not in content["config"]:
        raise ValueError(
            f"{checkpoint} is of another kind of network; expected: a checkpoint of training.train_landmarks, or "
            "python -m training.export"
        )
    network = LandmarkNet(content["config"]["width"])
    network.load_state_dict(content["ema"])
    network.eval()
    free = {"input": {0: "N"}, "landmarks": {0: "N"}}
    full = trace_to_onnx(network, (1, 3, SIDE, SIDE), ["landmarks"], free)
    squares = synthetic_crops(SIDE)  # (N, 96, 96, 3)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(squares).permute(0, 3, 1, 2))).numpy()
    return write_network(
        checkpoint,
        target,
        full,
        _FACTS,
        samples=int(content["samples"]),
        answer=lambda spec, file: reference_rows(spec, file, squares),
        expected=expected,
        largest_gaps=(LARGEST_GAP, LARGEST_HALF_GAP),
    )


if __name__ == "__main__":
    run_export(__doc__, export)
