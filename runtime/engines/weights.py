"""The ONNX file of a model: fetched, or generated once in the user's cache."""

from __future__ import annotations

from pathlib import Path

from ..assets import cache_dir
from ..errors import FacemillError
from ..fetch import sha256_of
from ..graphs.mobilefacenet import generate
from ..modelspec import ModelSpec, load_spec
from ..modelstore import find_weights, resolve_weights
from ..progress import Listener
from .engine import EngineInfo, lock_folder


def weights_for(spec: ModelSpec, listener: Listener | None = None) -> Path:
    """The path of a model's weights on this machine. They are fetched or generated if missing.

    Args:
        spec: a registered model.
        listener: receives the progress of a download; None logs a line every five seconds.
    Raises:
        ModelUnavailableError: the file is missing and cannot be fetched.
        ModelError: the file does not match the model file.
    """
    if spec.generator is None:
        return resolve_weights(spec, listener)
    form, seed = spec.generator.form, spec.generator.seed
    folder = cache_dir("models")
    path = folder / f"mobilefacenet-{form}-seed{seed}.onnx"
    with lock_folder(folder):  # of two simultaneous first runs, one generates and the other waits
        if not path.exists():
            generate(path, form=form, seed=seed)
    return path


def changed_weights(info: EngineInfo) -> str:
    """Why an engine does not match the model's ONNX file on this machine.

    Empty if it matches, if the model is not registered, or if the file is missing.
    """
    try:
        weights = find_weights(load_spec(info.model))
    except FacemillError:
        return ""  # an unregistered model file of the user
    if weights is None or sha256_of(weights) == info.model_sha256:
        return ""
    return f"it was built from a different ONNX file than {weights}"
