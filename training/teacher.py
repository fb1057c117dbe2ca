"""Trained networks that answer for exactly the image that the student sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.errors import ConfigError
from runtime.extras import require
from runtime.graphs.detector import load_detector
from runtime.modelspec import load_spec

from .command import require_file


class Teacher:
    """An OpenVINO or ONNX embedding model that answers for batches.

    Args:
        path: `.xml` (OpenVINO) or `.onnx`.
        size: side of its input, pixels.
        channel_order: "rgb" or "bgr".
        mean, std: normalisation, in grey levels.
        mirror: average the answers for an image and its mirror image: a steadier target at twice the cost.
        bfloat16: compute in bfloat16 if the processor supports it.
    Raises:
        ValueError: the file is missing, or is not an embedding model of this size.
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

        require_file(path, "teacher.path", "an embedding model, .xml or .onnx")
        core = openvino.Core()
        try:
            model = core.read_model(path)
            model.reshape([-1, 3, size, size])
        except RuntimeError as err:
            raise ValueError(
                f"{path} is not an embedding model of {size}x{size}; expected: .xml with its .bin, or .onnx"
            ) from err
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
        """Embed images.

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
        output = self._model(np.ascontiguousarray(x.cpu().numpy()))[0]
        return functional.normalize(torch.from_numpy(np.array(output)).to(x.device).flatten(1))


class DetectorTeacher:
    """A face detector on ONNX Runtime.

    Args:
        model_file: facemill's model file (TOML) of the detector.
        weights: the detector's ONNX file.
        any_family: take a detector of any family. A student that learns its values cell by cell needs YuNet's.
    Attributes:
        spec: the model file.
        weights: the ONNX file.
    Raises:
        ConfigError: the detector is of another family, whose answers mean something else than the student's.
        ModelError: the ONNX file is damaged.
        ValueError: the ONNX file does not exist.
    """

    def __init__(self, model_file: Path, weights: Path, *, any_family: bool = False) -> None:
        ort = require("onnxruntime")

        self.spec, self.weights = load_spec(str(model_file)), require_file(weights, "teacher", "a detector's ONNX file")
        if self.spec.decode != "yunet" and not any_family:
            raise ConfigError(
                f"{model_file} is a detector of the family {self.spec.decode!r}; expected: 'yunet', such as "
                "models/yunet.toml"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the student computes between batches
        model = load_detector(weights, self.spec).SerializeToString()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) in the model file's channel order, sides multiples of 32, to (N, P, V)."""
        pixels = (pictures.astype(np.float32) - np.float32(self.spec.mean)) / np.float32(self.spec.std)
        (answer,) = self._session.run(None, {self._input: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})
        return np.asarray(answer)
