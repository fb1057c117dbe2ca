#!/usr/bin/env python3
"""A detector's averaged weights as a model: python -m training.export_detector runs/detector/last.pt models/mine.onnx

Writes the ONNX file, weights in FP16, its outputs as YuNet's, and its model file beside it (models/mine.toml). Where
there is a model file already, its words are kept: title, licence, accuracy.
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
from .export import fill_in, halve_weights, run_export, traced
from .state import read_checkpoint

SIDE = 640  # of the pictures that the file is made for; facemill frees it
SIZE = 160
LARGEST_GAP = 1e-3  # of a number of the answer, ONNX to PyTorch: boxes and landmarks are in cells
LARGEST_HALF_GAP = 0.02  # of the same, FP16 weights to FP32 ones
_NAMES = [f"{what}_{stride}" for what in ("score", "box", "landmarks") for stride in STRIDES]

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
class Exported:
    """What was written, and how equal it proved.

    Attributes:
        size_bytes: of the ONNX file.
        samples: pictures that the weights have learned from.
        gap: largest difference of a number, FP32 ONNX to PyTorch.
        half_gap: the same, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    half_gap: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: {self.half_gap:.2g}"


class _Heads(nn.Module):
    """The detector as YuNet's file has it: grey levels in; outputs by kind, then by stride, a row for each cell."""

    def __init__(self, detector: FaceDetector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        # No pass over the picture: the first convolution divides.
        first = self.detector.stem[0].weight
        first.data = normalise(first.data)  # type: ignore[arg-type, operator]

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = self.detector.levels(images)
        rows = [[one.permute(0, 2, 3, 1).reshape(1, -1, one.shape[1]) for one in maps] for maps in levels]
        scores, boxes, landmarks = zip(*rows, strict=True)
        return [*(torch.sigmoid(score) for score in scores), *boxes, *landmarks]


def export(checkpoint: Path, target: Path) -> Exported:
    """Write the averaged weights of a checkpoint as `target` and the model file beside it; or, if unequal, nothing.

    Args:
        checkpoint: of training/train_detector.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is of no detector.
        ParityError: the ONNX file does not answer like the network.
    """
    content = read_checkpoint(checkpoint)
    if "widths" not in content["config"]:
        raise ValueError(
            f"{checkpoint} is of no detector; wanted: one of training.train_detector, or python -m training.export"
        )
    detector = FaceDetector(content["config"]["widths"])
    detector.load_state_dict(content["ema"])
    detector.eval()
    whole = traced(_Heads(detector).eval(), (1, 3, SIDE, SIDE), _NAMES, {})
    halved = halve_weights(whole).SerializeToString(deterministic=True)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIDE // 32, SIDE // 32, 3), np.uint8)
    pictures = pictures.repeat(32, axis=1).repeat(32, axis=2)  # (2, 640, 640, 3)
    with torch.no_grad():
        wanted = detector(normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        wanted[..., 0] = torch.sigmoid(wanted[..., 0])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        made, plain = Path(folder) / target.name, Path(folder) / "plain"
        made.write_bytes(halved)
        plain.write_bytes(whole.SerializeToString())
        described = made.with_suffix(".toml")
        described.write_text(fill_in(_MODEL_FILE, target, halved, size=SIZE, dimension=VALUES), encoding="utf-8")
        spec = load_spec(str(described))
        exact = reference_faces(plain, spec, pictures)
        gap = float(np.abs(exact - wanted.numpy()).max())
        half_gap = float(np.abs(exact - reference_faces(made, spec, pictures)).max())
        if not (gap <= LARGEST_GAP and half_gap <= LARGEST_HALF_GAP):
            raise ParityError(
                f"the ONNX file of {checkpoint} is not the network: largest difference {gap:.2g}, wanted at most "
                f"{LARGEST_GAP}; of FP16 weights {half_gap:.2g}, wanted at most {LARGEST_HALF_GAP}"
            )
        made.replace(target)
        described.replace(target.with_suffix(".toml"))
    return Exported(len(halved), int(content["samples"]), gap, half_gap)


if __name__ == "__main__":
    run_export(__doc__, export)
