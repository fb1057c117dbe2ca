"""An engine: a file that one backend runs, and its sidecar with the facts of its build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError, StorageError
from ..files import make_folder, write_durable
from ..locks import Lock
from ..regular import check_readable, read_regular
from ..schema import convert, parse_json

_MAX_BYTES = 1 << 31  # of an engine: protobuf's limit for an ONNX file
_MAX_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely an engine agrees with the model's own FP32 graph.

    Attributes:
        images: number of compared images; 0 if the engine cannot run on the machine that built it.
        minimum, mean: cosine between the outputs of engine and reference, 0.0 without images. The synthetic images of a
            detector are always compared, but the mean is over the given images.
    """

    images: int = 0
    minimum: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How an INT8 engine was quantised; empty for other precisions.

    Attributes:
        calibration: number, seed and digest of the calibration crops.
        method: the best of "minmax", "percentile" and "entropy".
        left_float: names of the layers that are not in INT8, most sensitive first.
    """

    calibration: str = ""
    method: str = ""
    left_float: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The facts of an engine, stored in `<engine>.json`.

    Attributes:
        model: name of the model file.
        model_sha256: SHA-256 of the ONNX file from which the engine was built.
        trained: False if the weights are random: such embeddings cannot identify a person.
        dimension: length D of an embedding.
        size: side S of the square crop, pixels.
        channel_order: "rgb" or "bgr", the channel order of the uint8 NHWC input.
        backend: "cpu", "cuda" or "tensorrt".
        backend_version: e.g. "onnxruntime 1.32.0".
        precision: "fp32", "fp16" or "int8", as read back from the built engine.
        profile: (min, opt, max) batch sizes.
        device: name or compute capability of the target device.
        engine_sha256: SHA-256 of the engine file.
        tool_version: version of facemill.
        context_bytes: device memory of one execution context of a TensorRT engine; 0 if no GPU has measured it.
        refused: error of the GPU for an engine of TensorRT-RTX's default set, if this engine was built for this GPU
            alone because of it; else empty.
        task, decode: as in the model file. The images of a detector may have any size; those of a landmark network are
            squares with the side `size`.
        recipe: tensor names and normalisation built into the engine.
        parity: agreement with the model.
        int8: how it was quantised.
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
    tool_version: str
    recipe: str = ""
    context_bytes: int = 0
    refused: str = ""
    task: str = "embed"
    decode: str = ""
    parity: Parity = Parity()
    int8: Quantisation = Quantisation()

    @property
    def detects(self) -> bool:
        """Whether the engine detects faces."""
        return self.task == "detect"

    def to_dict(self) -> dict[str, Any]:
        """The facts as one flat object, as in the sidecar."""
        facts, parity, int8 = asdict(self), self.parity, self.int8
        del facts["parity"], facts["int8"]
        facts |= {"parity_images": parity.images, "parity_min": parity.minimum, "parity_mean": parity.mean}
        left_float = list(int8.left_float)
        return {**facts, "calibration": int8.calibration, "calibration_method": int8.method, "left_float": left_float}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> EngineInfo:
        """Read the facts from `to_dict`.

        Raises:
            ValueError: a fact is missing, unknown, or has the wrong type.
        """
        raw = dict(facts)
        if "detector" in raw:  # an engine that was built before models had tasks
            raw["decode"] = raw.pop("detector")
            raw["task"] = "detect" if raw["decode"] else "embed"
        try:
            raw["parity"] = {
                "images": raw.pop("parity_images"),
                "minimum": raw.pop("parity_min"),
                "mean": raw.pop("parity_mean"),
            }
            raw["int8"] = {
                "calibration": raw.pop("calibration"),
                "method": raw.pop("calibration_method"),
                "left_float": raw.pop("left_float"),
            }
        except KeyError as err:
            raise ValueError(f"{err.args[0]} is missing") from err
        return convert(raw, cls)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine file and its facts, read once and passed along. `str(engine)` is the path.

    Attributes:
        path: the engine file.
        info: content of its sidecar.
    """

    path: Path
    info: EngineInfo

    def __str__(self) -> str:
        return str(self.path)

    def content(self) -> bytes:
        """Read the engine file.

        Raises:
            EngineError: the file cannot be read, or does not match its sidecar.
        """
        build = f"facemill build-engine --model {self.info.model} --backend {self.info.backend}"
        try:
            content = read_regular(self.path, _MAX_BYTES)
        except OSError as err:
            raise EngineError(f"the engine {self} cannot be read: {err.strerror}. Build it with: {build}") from err
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != self.info.engine_sha256:
            raise EngineError(
                f"the engine {self} does not match its sidecar: expected sha256 "
                f"{self.info.engine_sha256}, got {sha256}. Rebuild it with: {build} --force"
            )
        return content


def sidecar_path(engine: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return engine.parent / f"{engine.name}.json"


def read_engine(path: Path) -> Engine:
    """Read the facts of an engine.

    Args:
        path: the engine file; its sidecar is in the same folder.
    Raises:
        EngineError: the engine or its sidecar is missing, too large or no regular file, or the sidecar is damaged or
            has another version.
    """
    sidecar = sidecar_path(path)
    try:
        raw = parse_json(read_regular(sidecar, _MAX_SIDECAR_BYTES))
        if not isinstance(raw, dict):
            raise ValueError(f"it is {raw!r:.80}; expected: the facts of an engine")
        info = EngineInfo.from_dict(raw)
    except FileNotFoundError as err:
        raise EngineError(
            f"there is no engine {path} with a sidecar: {sidecar} does not exist. Expected an engine written by "
            f"build-engine. Build it with: facemill build-engine --model NAME"
        ) from err
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise EngineError(
            f"the engine's sidecar {sidecar} cannot be used: {reason}. "
            f"Rebuild the engine with: facemill build-engine --model NAME --force"
        ) from err
    try:
        check_readable(path, _MAX_BYTES)
    except OSError as err:
        missing = isinstance(err, FileNotFoundError)
        reason = "does not exist, but its sidecar does" if missing else f"cannot be read: {err.strerror}"
        raise EngineError(
            f"the engine {path} {reason}. "
            f"Build it with: facemill build-engine --model {info.model} --backend {info.backend}"
        ) from err
    return Engine(path, info)


def write_engine(path: Path, content: bytes, info: EngineInfo) -> Engine:
    """Write an engine and its sidecar durably. A reader gets the old pair, the new pair, or a pair that does not match.

    Args:
        path: the engine file; replaced if it exists.
        content: content of the engine file.
        info: facts for the sidecar.
    Raises:
        EngineError: the files cannot be written; the old ones are kept.
    """
    try:
        sidecar = (json.dumps(info.to_dict(), indent=2) + "\n").encode()
        write_durable(path, content, "the engine", shared=True, wait=True)
        write_durable(sidecar_path(path), sidecar, "the sidecar of the engine", shared=True, wait=True)
    except StorageError as err:
        raise EngineError(err.message) from err
    return Engine(path, info)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; other processes wait. The folder is created if missing.

    The lock is on the folder itself, so no file is left behind, and the kernel releases it when the process ends.

    Raises:
        EngineError: the folder cannot be created or locked.
    """
    try:
        make_folder(folder, shared=True)
        lock = Lock(folder, f"another process is building in {folder}", folder=True, wait=True)
    except OSError as err:
        raise EngineError(f"the folder {folder} cannot be used: {err.strerror}; expected: a writable folder") from err
    with lock:
        yield
