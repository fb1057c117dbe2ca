"""Choose engines by the names that users give: a model, a detector, an engine file, or the defaults."""

from __future__ import annotations

import os
from pathlib import Path

from ..assets import cache_dir
from ..errors import ConfigError, ModelUnavailableError, OptionError
from ..modelspec import list_specs, load_spec
from ..modelstore import SHIPPED_ATTRIBUTES, SHIPPED_DETECTOR, default_detector, default_model
from .build import build_engine
from .engine import Engine, read_engine, sidecar_path
from .weights import weights_for

_ENGINE_SUFFIXES = (".onnx", ".plan")


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
        ConfigError: the model detects faces.
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
    path = Path(name)
    if path.suffix in _ENGINE_SUFFIXES and sidecar_path(path).exists():
        return read_engine(path)
    try:
        return _engine_of(name, backend, "detect")
    except ModelUnavailableError as err:
        raise ModelUnavailableError(
            f"{err.message}\nThis model is the face detector. For new files use the detector that is included: "
            f"--detector {SHIPPED_DETECTOR}. Aligned crops need no detector: --align none"
        ) from err


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
    return _engine_of(SHIPPED_ATTRIBUTES, backend, "attributes")


def _engine_of(model: str, backend: str, task: str = "embed") -> Engine:
    spec = load_spec(model, detects=task == "detect")
    if spec.task != task:  # before anything is fetched or built
        does = {"embed": "embeds faces", "detect": "detects faces"}.get(spec.task, f"is for {spec.task}")
        option = "--detector" if task == "detect" else "--model"
        fitting = ", ".join(other.name for other in list_specs() if other.task == task)
        raise ConfigError(f"{option} is {model}, which {does} only; expected: one of {fitting}, or a PATH.toml")
    return build_engine(spec, weights_for(spec), backend=backend, output=cache_dir("engines")).engine
