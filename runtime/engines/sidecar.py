"""The sidecar beside an engine file: what it was built from, for what, and how equal it proved to be."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import EngineError


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `<engine>.json` holds.

    Attributes:
        model: name of the model file.
        model_sha256: of the ONNX file that the engine was built from.
        trained: False when the weights are random: embeddings identify nobody.
        dimension: length D of an embedding.
        size: side S of the square crop, pixels.
        channel_order: "rgb" or "bgr": the order that the engine's uint8 NHWC input wants.
        backend: "cpu", "cuda" or "tensorrt".
        backend_version: e.g. "onnxruntime 1.32.0".
        precision: "fp32", "fp16" or "int8", as read back from the built engine.
        profile: (min, opt, max) batch sizes.
        device: device name or compute capability the engine is for.
        engine_sha256: of the engine file itself.
        parity_images: number of images compared with the FP32 graph; 0 when the engine could not be run here.
        parity_min, parity_mean: cosine to the FP32 graph; 0.0 when parity_images is 0.
        tool_version: facemill's.
        context_bytes: device memory of one execution context of a TensorRT engine; 0 where no GPU has told it.
        refused: what this machine's GPU said to an engine for TensorRT-RTX's default set, where it did not take that
            and this one was built for it alone; else empty.
        detector: family of a face detector, whose pictures may be of any size; empty for a network that embeds.
        recipe: tensor names and normalisation built into the engine: with others it is another engine.
        calibration: the crops that an INT8 engine was calibrated on: how many, seed and digest; empty for others.
        calibration_method: "minmax", "percentile" or "entropy", whichever did best; empty for others.
        left_float: names of its layers that are not in INT8, most sensitive first.
    """

    model: str
    model_sha256: str
    trained: bool
    dimension: int
    size: int
    channel_order: str
    backend: str
    backend_version: str
    precision: str
    profile: tuple[int, int, int]
    device: str
    engine_sha256: str
    parity_images: int
    parity_min: float
    parity_mean: float
    tool_version: str
    recipe: str = ""
    context_bytes: int = 0
    refused: str = ""
    detector: str = ""
    calibration: str = ""
    calibration_method: str = ""
    left_float: tuple[str, ...] = ()


def sidecar_path(engine: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return engine.with_name(engine.name + ".json")


def write_sidecar(engine: Path, info: EngineInfo) -> Path:
    """Write the sidecar atomically and return its path."""
    path = sidecar_path(engine)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(info), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def read_sidecar(engine: Path) -> EngineInfo:
    """Read the sidecar of an engine.

    Raises:
        EngineError: it is missing, damaged or of another version of facemill.
    """
    path = sidecar_path(engine)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["profile"], raw["left_float"] = tuple(raw["profile"]), tuple(raw["left_float"])
        return EngineInfo(**{f.name: raw[f.name] for f in fields(EngineInfo)})
    except FileNotFoundError as err:
        raise EngineError(
            f"no sidecar beside the engine: {path} does not exist; wanted: an engine written by "
            f"build-engine. Build it with: python build_engine.py --model NAME"
        ) from err
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise EngineError(
            f"the engine's sidecar {path} cannot be used ({type(err).__name__}: {err}). "
            f"Build the engine again with: python build_engine.py --model NAME --force"
        ) from err
