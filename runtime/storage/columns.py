"""The columns of an embedding file besides vectors and paths: which it must have, and reading them whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..records import ALL_FACE_DATASETS, FACE, FACE_DATASETS, attribute_datasets, unread_attributes
from .contract import EmbeddingContract

if TYPE_CHECKING:
    from .file import EmbeddingFile


def needed_columns(contract: EmbeddingContract, *, faces: bool) -> list[str]:
    """The datasets that a file of this contract must have besides `/embeddings`.

    Args:
        contract: its contract.
        faces: whether it has faces.
    """
    face_datasets = ALL_FACE_DATASETS if contract.all_pages else FACE_DATASETS
    attributes = attribute_datasets(contract.attributes_read)
    return ["image_paths", *(face_datasets.values() if faces else ()), *attributes.values()]


def read_faces(file: EmbeddingFile) -> NDArray[np.void]:
    """(N,) FACE of a file with faces; NaN, and page 0, where it is older than a field."""
    faces = np.zeros(file.rows, FACE)
    for name, dataset in ALL_FACE_DATASETS.items():
        missing = 0 if name == "page" else np.nan
        faces[name] = file.column(dataset, 0, file.rows) if file.has_column(dataset) else missing
    return faces


def read_attributes_of(file: EmbeddingFile) -> NDArray[np.void]:
    """(N,) ATTRIBUTES of a file with attributes; unread where it lacks a field."""
    attributes = unread_attributes(file.rows)
    for name, dataset in attribute_datasets(file.contract.attributes_read).items():
        attributes[name] = file.column(dataset, 0, file.rows)
    return attributes
