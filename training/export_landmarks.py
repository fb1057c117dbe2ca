#!/usr/bin/env python3
"""Export a landmark network: python -m training.export_landmarks runs/landmarks/last.pt models/facemill-landmarks.onnx

Writes the averaged weights of a checkpoint as an ONNX file, in FP16, and its model file in the same folder
(models/facemill-landmarks.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from runtime.engines.parity import reference_rows, synthetic_crops
from runtime.errors import ParityError
from runtime.modelspec import load_spec

from .export import fill_in, halve_weights, run_export, trace_to_onnx
from .landmarks import SIDE, VALUES, LandmarkNet, normalise
from .state import read_checkpoint

LARGEST_GAP = 0.01  # per number of the answer, ONNX to PyTorch; places are in pixels of the square
LARGEST_HALF_GAP = 0.25  # the same, FP16 weights to FP32 weights

_MODEL_FILE = """\
name = {name}
title = {title}
task = "landmarks"
file = {file}
input_name = "input"
output_name = "landmarks"
size = {size}
channel_order = "rgb"
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]
dimension = {dimension}
licence = {licence}
accuracy = {accuracy}
accuracy_source = {accuracy_source}
sha256 = {sha256}
size_bytes = {size_bytes}
"""


@dataclass(frozen=True)
class ExportedLandmarks:
    """An exported landmark network, and how close it is to the network of the checkpoint.

    Attributes:
        size_bytes: size of the ONNX file.
        samples: squares that the weights have learned from.
        gap: largest difference of a number, FP32 ONNX to PyTorch.
        half_gap: largest difference of a number, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    half_gap: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: {self.half_gap:.2g}"


def export(checkpoint: Path, target: Path) -> ExportedLandmarks:
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
    halved = halve_weights(full).SerializeToString(deterministic=True)
    squares = synthetic_crops(SIDE)  # (N, 96, 96, 3)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(squares).permute(0, 3, 1, 2))).numpy()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        halved_file, full_file = Path(folder) / target.name, Path(folder) / "plain"
        halved_file.write_bytes(halved)
        full_file.write_bytes(full.SerializeToString())
        toml_file = halved_file.with_suffix(".toml")
        toml_file.write_text(fill_in(_MODEL_FILE, target, halved, size=SIDE, dimension=VALUES), encoding="utf-8")
        spec = load_spec(str(toml_file))
        full_answers = reference_rows(spec, full_file, squares)
        gap = float(np.abs(full_answers - expected).max())
        half_gap = float(np.abs(full_answers - reference_rows(spec, halved_file, squares)).max())
        if not (gap <= LARGEST_GAP and half_gap <= LARGEST_HALF_GAP):
            raise ParityError(
                f"the ONNX file of {checkpoint} differs from the network: largest difference {gap:.2g}, expected at "
                f"most {LARGEST_GAP}; of FP16 weights {half_gap:.2g}, expected at most {LARGEST_HALF_GAP}"
            )
        halved_file.replace(target)
        toml_file.replace(target.with_suffix(".toml"))
    return ExportedLandmarks(len(halved), int(content["samples"]), gap, half_gap)


if __name__ == "__main__":
    run_export(__doc__, export)
