"""A head: a small network that reads age and gender from embeddings, without the photos."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..assets import asset_dir
from ..errors import ModelError
from ..modelspec import user_folder
from ..regular import read_regular
from .answers import AGES, VALUES

_MAX_BYTES = 64 << 20
_LAYERS = ("weight1", "bias1", "weight2", "bias2")


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head for the embeddings of one model: two layers with a ReLU between them.

    Attributes:
        name: name of its file.
        model_sha256: SHA-256 of the ONNX file whose embeddings it reads.
        sha256: SHA-256 of its own file.
        weight1, bias1, weight2, bias2: (D, H), (H,), (H, 102), (102,) float32.
    """

    name: str
    model_sha256: str
    sha256: str
    weight1: NDArray[np.float32]
    bias1: NDArray[np.float32]
    weight2: NDArray[np.float32]
    bias2: NDArray[np.float32]

    def answer(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer for embeddings.

        Args:
            vectors: (n, D) float32, unit rows.
        Returns:
            (n, 102) float32, probabilities of the ages 0 to 100 and of "woman"; NaN for a row of zeros, which shows
            nobody.
        """
        hidden = np.maximum(vectors @ self.weight1 + self.bias1, 0)
        values = np.asarray(hidden @ self.weight2 + self.bias2, np.float32)  # (n, 102), logits
        ages = np.exp(values[:, :AGES] - values[:, :AGES].max(axis=1, keepdims=True))
        values[:, :AGES] = ages / ages.sum(axis=1, keepdims=True)
        values[:, AGES] = 1 / (1 + np.exp(-values[:, AGES]))
        values[~vectors.any(axis=1)] = np.nan
        return values


def find_head(model: str, model_sha256: str | None) -> Head:
    """Find the head for the embeddings of a model, in facemill's models or in the folder FACEMILL_MODELS.

    Args:
        model: its name, for messages.
        model_sha256: SHA-256 of its ONNX file; None for a file that does not say.
    Raises:
        ModelError: there is none, or a file is damaged.
    """
    heads = list(_all_heads())
    for head in heads:
        if head.model_sha256 == model_sha256:
            return head
    known = ", ".join(head.name for head in heads) or "none"
    raise ModelError(
        f"there is no head that reads age and gender from embeddings of {model} "
        f"(sha256 {model_sha256 or 'unknown':.12}); there are: {known}. Read the photos instead: --from photos"
    )


def _all_heads() -> Iterator[Head]:
    for folder in (*user_folder(), asset_dir("models")):
        for path in sorted(folder.glob("*.npz")):
            yield read_head(path)


def read_head(path: Path) -> Head:
    """Read a head that training/train_head.py wrote.

    Raises:
        ModelError: the file cannot be read, or is none.
    """
    try:
        content = read_regular(path, _MAX_BYTES)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            layers = {name: np.ascontiguousarray(file[name], np.float32) for name in _LAYERS}
            dimension, hidden = layers["weight1"].shape
            shapes = {"bias1": (hidden,), "weight2": (hidden, VALUES), "bias2": (VALUES,)}
            wrong = [name for name, shape in shapes.items() if layers[name].shape != shape]
            if wrong or not all(np.isfinite(layer).all() for layer in layers.values()):
                raise ValueError(f"{', '.join(wrong) or 'a layer'} does not fit {dimension} numbers of an embedding")
            return Head(path.stem, str(facts["model_sha256"]), hashlib.sha256(content).hexdigest(), **layers)
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise ModelError(f"{path} cannot be used as a head for embeddings: {err}") from err
