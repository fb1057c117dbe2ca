"""A trained network that answers for the very picture that the student sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Teacher:
    """An OpenVINO or ONNX embedding model, asked in batches.

    Args:
        path: `.xml` (OpenVINO) or `.onnx`.
        size: side of its input, pixels.
        channel_order: "rgb" or "bgr".
        mean, std: in grey levels.
        mirror: average the answers for a picture and its mirror image: a steadier target at twice the cost.
        bfloat16: compute in bfloat16 where the processor has it.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int,
        channel_order: str = "rgb",
        mean: float = 0.0,
        std: float = 1.0,
        mirror: bool = False,
        bfloat16: bool = False,
    ) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape([-1, 3, size, size])
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # one large batch at a time: its images share the cores
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        }
        self._model = core.compile_model(model, "CPU", hints)
        self._size = size
        self._bgr = channel_order == "bgr"
        self._mean, self._std = mean, std
        self._mirror = mirror

    def __call__(self, images: Tensor) -> Tensor:
        """Answers for pictures.

        Args:
            images: (N, 3, S, S) float32 RGB, 0..255; resized as needed.
        Returns:
            (N, D) float32, unit rows.
        """
        x = images
        if x.shape[-1] != self._size:
            x = functional.interpolate(x, size=(self._size, self._size), mode="bilinear", align_corners=False)
        if self._bgr:
            x = x.flip(1)
        x = (x - self._mean) / self._std
        answer = self._ask(x)
        if self._mirror:
            answer = answer + self._ask(x.flip(3))
        return functional.normalize(answer)

    def _ask(self, x: Tensor) -> Tensor:
        found = self._model(np.ascontiguousarray(x.numpy()))[0]
        return functional.normalize(torch.from_numpy(np.array(found)).flatten(1))
