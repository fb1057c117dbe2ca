"""An engine: a file that one backend runs, and the sidecar that says what it was built from and how well it does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import EngineError

logger = logging.getLogger(__name__)


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
            EngineError: the file cannot be read, or is not the file that the sidecar describes.
        """
        build = f"facemill build-engine --model {self.info.model} --backend {self.info.backend}"
        try:
            content = self.path.read_bytes()
        except OSError as err:
            raise EngineError(f"the engine {self} cannot be read: {err.strerror}. Build it with: {build}") from err
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != self.info.engine_sha256:
            raise EngineError(
                f"the engine {self} is not the file that its sidecar describes: expected sha256 "
                f"{self.info.engine_sha256}, got {sha256}. Build it again with: {build} --force"
            )
        return content


def sidecar_path(engine: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return engine.parent / f"{engine.name}.json"


def read_engine(path: Path) -> Engine:
    """Read the facts of an engine that build-engine wrote.

    Args:
        path: the engine file; its sidecar is in the same folder.
    Raises:
        EngineError: the engine or its sidecar is missing, or the sidecar is damaged or of another version of facemill.
    """
    sidecar = sidecar_path(path)
    try:
        raw = json.loads(sidecar.read_text(encoding="utf-8"))
        raw["profile"], raw["left_float"] = tuple(raw["profile"]), tuple(raw["left_float"])
        info = EngineInfo(**{f.name: raw[f.name] for f in fields(EngineInfo)})
    except FileNotFoundError as err:
        raise EngineError(
            f"there is no engine {path} with a sidecar: {sidecar} does not exist. Expected an engine written by "
            f"build-engine. Build it with: facemill build-engine --model NAME"
        ) from err
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise EngineError(
            f"the engine's sidecar {sidecar} cannot be used ({type(err).__name__}: {err}). "
            f"Build the engine again with: facemill build-engine --model NAME --force"
        ) from err
    if not path.is_file():
        raise EngineError(
            f"the engine {path} does not exist, and its sidecar does. "
            f"Build it with: facemill build-engine --model {info.model} --backend {info.backend}"
        )
    return Engine(path, info)


def write_engine(path: Path, content: bytes, info: EngineInfo) -> Engine:
    """Write an engine and its sidecar durably. A reader gets the old pair, the new pair, or a pair that does not match.

    Args:
        path: the engine file; replaced if it exists.
        content: the engine.
        info: for the sidecar.
    Raises:
        EngineError: the files cannot be written; the old ones stay.
    """
    partials: list[Path] = []
    try:
        for target, data in ((path, content), (sidecar_path(path), write_json(info))):
            partials.append(target.with_name(target.name + ".partial"))
            with partials[-1].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partials[-1].replace(target)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)  # the renames survive a power cut only after this
        finally:
            os.close(fd)
    except OSError as err:
        for partial in partials:
            partial.unlink(missing_ok=True)
        raise EngineError(f"the engine {path} cannot be written: {err.strerror or err}") from err
    return Engine(path, info)


def write_json(info: EngineInfo) -> bytes:
    """The content of a sidecar."""
    return (json.dumps(asdict(info), indent=2) + "\n").encode()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, created if need be, for this process alone; a second one waits.

    The lock is on the folder itself: no file is left behind, and the kernel releases it when the process ends.

    Raises:
        EngineError: the folder cannot be created or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as err:
        raise EngineError(
            f"the folder {folder} cannot be used: {err.strerror}; expected: a folder that can be written to"
        ) from err
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another build in %s", folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
