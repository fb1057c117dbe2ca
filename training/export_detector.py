#!/usr/bin/env python3
"""Export a detector's averaged weights: python -m training.export_detector runs/detector/last.pt models/mine.onnx

Writes the ONNX file, with weights in FP16 and YuNet's outputs, and its model file in the same folder
(models/mine.toml). If the model file exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime.graphs.detector import reference_faces

from .detector import STRIDES, VALUES, FaceDetector, normalise
from .export import ExportedNetwork, run_export, trace_to_onnx, write_network
from .state import read_checkpoint

SIDE = 640  # pixels, the fixed input of the file; facemill makes it free
SIZE = 160
LARGEST_GAP = 1e-3  # per number of the answer, ONNX to PyTorch; boxes and landmarks are in cells
LARGEST_HALF_GAP = 0.02  # the same, FP16 weights to FP32 weights
_NAMES = [f"{kind}_{stride}" for kind in ("score", "box", "landmarks") for stride in STRIDES]

_FACTS = {
    **{"task": "detect", "input_name": "", "output_name": "", "size": SIZE, "channel_order": "bgr"},
    **{"mean": [0.0] * 3, "std": [1.0] * 3, "dimension": VALUES, "decode": "yunet"},
}


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


def export(checkpoint: Path, target: Path) -> ExportedNetwork:
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
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIDE // 32, SIDE // 32, 3), np.uint8)
    pictures = pictures.repeat(32, axis=1).repeat(32, axis=2)  # (2, 640, 640, 3)
    with torch.no_grad():
        expected = detector(normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        expected[..., 0] = torch.sigmoid(expected[..., 0])
    return write_network(
        checkpoint,
        target,
        full,
        _FACTS,
        samples=int(content["samples"]),
        answer=lambda spec, file: reference_faces(file, spec, pictures),
        expected=expected.numpy(),
        largest_gaps=(LARGEST_GAP, LARGEST_HALF_GAP),
    )


if __name__ == "__main__":
    run_export(__doc__, export)
