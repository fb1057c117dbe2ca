"""Text about a model for people: its label, and a warning about untrained weights."""

from __future__ import annotations

from ..pipeline.request import UNTRAINED_WARNING
from ..storage.file import EmbeddingFile


def label_model(model: str, model_sha256: str) -> str:
    """The name of a model with the start of its checksum, to tell versions apart."""
    return f"{model} (sha256 {model_sha256[:12]})"


def file_model_label(gallery: EmbeddingFile) -> str:
    """The label of the model that made a file."""
    return label_model(*(str(gallery.metadata.get(key, "unknown")) for key in ("model", "model_sha256")))


def model_warning(gallery: EmbeddingFile) -> str:
    """The warning about the weights that made a file; empty for trained ones."""
    return "" if gallery.metadata.get("trained", True) else UNTRAINED_WARNING
