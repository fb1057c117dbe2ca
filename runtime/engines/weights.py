"""The ONNX file of a model: fetched, or generated once into the user's cache."""

from __future__ import annotations

from pathlib import Path

from ..assets import cache_dir
from ..errors import ModelError
from ..graphs.mobilefacenet import generate
from ..modelspec import ModelSpec
from ..modelstore import resolve_weights
from ..progress import Listener
from .engine import locked


def weights_for(spec: ModelSpec, listener: Listener | None = None) -> Path:
    """Where the weights of a model are on this machine; a generated model is generated when first asked for.

    Args:
        spec: a registered model.
        listener: shows the progress of a download; None logs a line every five seconds.
    Raises:
        ModelUnavailableError: the file is neither here nor to be fetched.
        ModelError: the file is not the one that the model file states, or the generator's arguments are wrong.
    """
    if not spec.generator:
        return resolve_weights(spec, listener)
    arguments = dict(spec.generator)
    form, seed = arguments.get("form"), arguments.get("seed")
    if set(arguments) != {"form", "seed"} or not isinstance(form, str) or not isinstance(seed, int):
        raise ModelError(
            f"the model file {spec.name} has a [generator] with {arguments}; "
            f'wanted: form = "128" or "512" and seed = a whole number'
        )
    folder = cache_dir("models")
    path = folder / f"mobilefacenet-{form}-seed{seed}.onnx"
    with locked(folder):  # two first runs at once: one generates, the other waits
        if not path.exists():
            generate(path, form=form, seed=seed)
    return path
