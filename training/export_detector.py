#!/usr/bin/env python3
"""Export a detector's averaged weights: python -m training.export_detector runs/detector/last.pt models/mine.onnx

Writes the ONNX file, with weights in FP16 and YuNet's outputs, and its model file in the same folder
(models/mine.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime.errors import ParityError
from runtime.graphs.detector import reference_faces
from runtime.modelspec import load_spec

from .detector import STRIDES, VALUES, FaceDetector, normalise
from .export import fill_in, halve_weights, run_export, trace_to_onnx
from .state import read_checkpoint

SIDE = 640  # pixels, the fixed input of the file; facemill makes it free
SIZE = 160
LARGEST_GAP = 1e-3  # per number of the answer, ONNX to PyTorch; boxes and landmarks are in cells
LARGEST_HALF_GAP = 0.02  # the same, FP16 weights to FP32 weights
_NAMES = [f"{kind}_{stride}" for kind in ("score", "box", "landmarks") for stride in STRIDES]

_MODEL_FILE = """\
name = {name}
title = {title}
file = {file}
input_name = ""
output_name = ""
size = {size}
channel_order = "bgr"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
dimension = {dimension}
task = "detect"
decode = "yunet"
licence = {licence}
accuracy = {accuracy}
accuracy_source = {accuracy_source}
sha256 = {sha256}
size_bytes = {size_bytes}
"""


@dataclass(frozen=True)
class ExportedDetector:
    """An exported detector, and how close it is to the network.

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


class _Heads(nn.Module):
    """The detector with YuNet's inputs and outputs: grey levels in, outputs by kind and stride, a row per cell."""

    def __init__(self, detector: FaceDetector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        # The first convolution divides by 255, which saves a pass over the image.
        first = self.detector.stem[0].weight
        first.data = normalise(first.data)  # type: ignore[arg-type, operator]

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = self.detector.levels(images)
        rows = [[x.permute(0, 2, 3, 1).reshape(1, -1, x.shape[1]) for x in maps] for maps in levels]
        scores, boxes, landmarks = zip(*rows, strict=True)
        return [*(torch.sigmoid(score) for score in scores), *boxes, *landmarks]


def export(checkpoint: Path, target: Path) -> ExportedDetector:
    """Write the averaged weights of a checkpoint to `target`, and the model file to the same folder.

    Args:
        checkpoint: checkpoint of training/train_detector.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is not a detector's.
        ParityError: the ONNX file does not answer like the network; nothing is written.
    """
    content = read_checkpoint(checkpoint)
    if "widths" not in content["config"]:
        raise ValueError(
            f"{checkpoint} is not a detector's; expected: a checkpoint of training.train_detector, or python -m "
            "training.export"
        )
    detector = FaceDetector(content["config"]["widths"])
    detector.load_state_dict(content["ema"])
    detector.eval()
    full = trace_to_onnx(_Heads(detector).eval(), (1, 3, SIDE, SIDE), _NAMES, {})
    halved = halve_weights(full).SerializeToString(deterministic=True)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIDE // 32, SIDE // 32, 3), np.uint8)
    pictures = pictures.repeat(32, axis=1).repeat(32, axis=2)  # (2, 640, 640, 3)
    with torch.no_grad():
        expected = detector(normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        expected[..., 0] = torch.sigmoid(expected[..., 0])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        halved_file, full_file = Path(folder) / target.name, Path(folder) / "plain"
        halved_file.write_bytes(halved)
        full_file.write_bytes(full.SerializeToString())
        toml_file = halved_file.with_suffix(".toml")
        toml_file.write_text(fill_in(_MODEL_FILE, target, halved, size=SIZE, dimension=VALUES), encoding="utf-8")
        spec = load_spec(str(toml_file))
        full_answers = reference_faces(full_file, spec, pictures)
        gap = float(np.abs(full_answers - expected.numpy()).max())
        half_gap = float(np.abs(full_answers - reference_faces(halved_file, spec, pictures)).max())
        if not (gap <= LARGEST_GAP and half_gap <= LARGEST_HALF_GAP):
            raise ParityError(
                f"the ONNX file of {checkpoint} differs from the network: largest difference {gap:.2g}, expected at "
                f"most {LARGEST_GAP}; of FP16 weights {half_gap:.2g}, expected at most {LARGEST_HALF_GAP}"
            )
        halved_file.replace(target)
        toml_file.replace(target.with_suffix(".toml"))
    return ExportedDetector(len(halved), int(content["samples"]), gap, half_gap)


if __name__ == "__main__":
    run_export(__doc__, export)
