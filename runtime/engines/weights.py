"""The ONNX file of a model: fetched, or generated once into the user's cache."""

from __future__ import annotations

from pathlib import Path

from ..assets import cache_dir
from ..errors import FacemillError
from ..graphs.mobilefacenet import generate
from ..modelspec import ModelSpec, load_spec
from ..modelstore import find_weights, resolve_weights, sha256_of
from ..progress import Listener
from .engine import EngineInfo, locked


def weights_for(spec: ModelSpec, listener: Listener | None = None) -> Path:
    """Where the weights of a model are on this machine; a generated model is generated when first asked for.

    Args:
        spec: a registered model.
        listener: shows the progress of a download; None logs a line every five seconds.
    Raises:
        ModelUnavailableError: the file is neither here nor to be fetched.
        ModelError: the file is not the one that the model file states.
    """
    if spec.generator is None:
        return resolve_weights(spec, listener)
    form, seed = spec.generator.form, spec.generator.seed
    folder = cache_dir("models")
    path = folder / f"mobilefacenet-{form}-seed{seed}.onnx"
    with locked(folder):  # two first runs at once: one generates, the other waits
        if not path.exists():
            generate(path, form=form, seed=seed)
    return path


def other_weights(info: EngineInfo) -> str:
    """Say that the model's ONNX file on this machine is another one than the engine was built from.

    Empty where it is the same, where the model is not registered, and where its file is not here.
    """
    try:
        weights = find_weights(load_spec(info.model))
    except FacemillError:
        return ""  # a model file of the user's own, not registered
    if weights is None or sha256_of(weights) == info.model_sha256:
        return ""
    return f"it was built from another ONNX file than {weights}"
