"""Choose engines by the names that users give: a model, a detector, an engine file, or the defaults."""

from __future__ import annotations

import os
from pathlib import Path

from ..assets import cache_dir
from ..errors import ConfigError, ModelUnavailableError, OptionError
from ..modelspec import list_specs, load_spec
from ..modelstore import (
    SHIPPED_ATTRIBUTES,
    SHIPPED_DETECTOR,
    SHIPPED_LANDMARKS,
    default_detector,
    default_model,
    find_weights,
)
from .build import build_engine
from .engine import Engine, read_engine, sidecar_path
from .weights import weights_for

_ENGINE_SUFFIXES = (".onnx", ".plan")
_NO_LANDMARKS = "none"
_OPTIONS = {"embed": "--model", "detect": "--detector", "landmarks": "--landmarks"}
_WORK = {
    "embed": "embeds faces",
    "detect": "detects faces",
    "landmarks": "finds the landmarks of faces",
    "attributes": "reads age and gender",
}


def choose_engine(
    engine: str | os.PathLike[str] | Engine | None = None,
    *,
    model: str | None = None,
    backend: str = "auto",
    resumed: str = "",
) -> Engine:
    """Choose the engine that embeds: the given one, or that of the model, built if no existing one is up to date.

    Args:
        engine: an engine file; None to choose by model and backend.
        model: a registered name or a model file (`PATH.toml`); None for the default model of this machine.
        backend: "cpu", "cuda", "tensorrt", or "auto" for the fastest on this machine.
        resumed: the model of the file that is resumed, which replaces the default; empty if no file is resumed.
    Raises:
        OptionError: an engine is given together with a model or a backend.
        ConfigError: the model does not embed faces.
        EngineError: the engine is missing, damaged or cannot be built.
        ModelError, ModelUnavailableError: the model is unknown, or its weights cannot be fetched.
    """
    if engine is None:
        return _engine_of(model or default_model(resumed), backend)
    if model is not None or backend != "auto":
        raise OptionError("an engine and a model or backend are given; expected: an engine alone, or the others")
    return engine if isinstance(engine, Engine) else read_engine(Path(engine))


def choose_detector(
    detector: str | os.PathLike[str] | Engine | None = None,
    *,
    align: str = "auto",
    backend: str = "auto",
    resumed: str = "",
) -> Engine | None:
    """Choose the engine that detects faces: the given one, or that of the model, built unless one is up to date.

    Args:
        detector: a registered name, a model file (`PATH.toml`) or an engine file; None for the default of this machine.
        align: "none" to detect no faces.
        backend: backend of a detector that is given by its model.
        resumed: the detector of the file that is resumed; empty if no file is resumed.
    Returns:
        None if no faces are detected.
    Raises:
        ConfigError: the model does not detect faces.
        EngineError: the engine is damaged or cannot be built.
        ModelError, ModelUnavailableError: the model is unknown, or its weights cannot be fetched.
    """
    if align == "none":
        return None
    if isinstance(detector, Engine):
        return detector
    name = os.fspath(detector or default_detector(resumed))
    try:
        return _engine_at(name) or _engine_of(name, backend, task="detect")
    except ModelUnavailableError as err:
        raise ModelUnavailableError(
            f"{err.message}\nThis model is the face detector. For new files use the detector that is included: "
            f"--detector {SHIPPED_DETECTOR}. Aligned crops need no detector: --align none"
        ) from err


def choose_landmarks(
    landmarks: str | os.PathLike[str] | Engine | None = None,
    *,
    align: str = "auto",
    backend: str = "auto",
    resumed: str | None = None,
) -> Engine | None:
    """Choose the engine that looks at each face once more: the given one, or that of the model, built if needed.

    Args:
        landmarks: a registered name, a model file (`PATH.toml`), an engine file, or "none"; None for the default.
        align: "none" to detect no faces.
        backend: backend of a network that is given by its model.
        resumed: the landmark network of the file that is resumed, "none" for a file without one, which replaces the
            default; None if no file is resumed.
    Returns:
        None if no face is looked at once more.
    Raises:
        ConfigError: the model does not find landmarks.
        EngineError: the engine is damaged or cannot be built.
        ModelError, ModelUnavailableError: the model is unknown, or its weights are missing.
    """
    if align == "none":
        return None
    if isinstance(landmarks, Engine):
        return landmarks
    default = resumed if resumed in (_NO_LANDMARKS, SHIPPED_LANDMARKS) else SHIPPED_LANDMARKS
    name = os.fspath(landmarks or default)
    return None if name == _NO_LANDMARKS else _engine_at(name) or _engine_of(name, backend, task="landmarks")


def is_file_name(detector: str) -> bool:
    """Whether a detector is given as a file, not as a registered name."""
    return Path(detector).suffix in (".toml", *_ENGINE_SUFFIXES)


def licence_of(detector: str) -> str:
    """The licence in the model file of a detector; empty for an engine whose model is not registered.

    Args:
        detector: a registered name, a model file or an engine file.
    """
    path = Path(detector)
    if path.suffix not in _ENGINE_SUFFIXES:
        return load_spec(detector).licence
    sha256 = read_engine(path).info.model_sha256
    return next((spec.licence for spec in list_specs() if spec.sha256 == sha256), "")


def choose_attributes(backend: str = "auto") -> Engine:
    """Choose the engine that reads age and gender from crops, built unless one is up to date.

    Args:
        backend: its backend.
    Raises:
        EngineError, ModelError: the engine cannot be built.
    """
    return _engine_of(SHIPPED_ATTRIBUTES, backend, task="attributes")


def model_files(*names: object) -> list[Path]:
    """The files of the models that are named by the path of their model file, for `outputs.refuse_inputs`.

    Raises:
        ModelError: a model file is missing or damaged.
    """
    paths = [Path(name) for name in names if isinstance(name, (str, os.PathLike)) and Path(name).suffix == ".toml"]
    weights = (find_weights(load_spec(os.fspath(path))) for path in paths)
    return [*paths, *(path for path in weights if path is not None)]


def _engine_at(name: str) -> Engine | None:
    """Read the engine of a file name; None if the name is none of an engine."""
    path = Path(name)
    return read_engine(path) if path.suffix in _ENGINE_SUFFIXES and sidecar_path(path).exists() else None


def _engine_of(model: str, backend: str, *, task: str = "embed") -> Engine:
    spec = load_spec(model, task=task)
    if spec.task != task:  # before anything is fetched or built
        fitting = ", ".join(other.name for other in list_specs() if other.task == task)
        raise ConfigError(
            f"{_OPTIONS[task]} is {model}, which {_WORK[spec.task]} only; expected: one of {fitting}, or a PATH.toml"
        )
    return build_engine(spec, weights_for(spec), backend=backend, output=cache_dir("engines")).engine
