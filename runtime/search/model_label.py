"""Who made embeddings, in words, and what a user must know of the weights."""

from __future__ import annotations

from ..pipeline.request import UNTRAINED_WARNING
from ..storage.file import EmbeddingFile


def named(model: str, model_sha256: str) -> str:
    """A model for a person: enough of its checksum to tell two apart."""
    return f"{model} (sha256 {model_sha256[:12]})"


def made_by(gallery: EmbeddingFile) -> str:
    """The model of a file, for a person."""
    return named(*(str(gallery.metadata.get(key, "unknown")) for key in ("model", "model_sha256")))


def warning_of(gallery: EmbeddingFile) -> str:
    """What a user must know of the weights that made a file; empty for trained ones."""
    return "" if gallery.metadata.get("trained", True) else UNTRAINED_WARNING
