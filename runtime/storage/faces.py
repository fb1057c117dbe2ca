"""What is known of each face, in datasets aligned with `/embeddings`: a segment has the same as the finished file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import FACE, FACE_DATASETS

_CHUNK_ROWS = 4096


def create_faces(file: Any) -> None:
    """The datasets of an open new file, each still without a row."""
    for name, dataset in FACE_DATASETS.items():
        # Coordinates hardly compress (a quarter, with shuffling, of what is little beside the vectors); ranks do.
        ranks = name == "face_index"
        file.create_dataset(
            dataset,
            shape=(0, *FACE[name].shape),
            maxshape=(None, *FACE[name].shape),
            dtype=FACE[name].base,
            chunks=(_CHUNK_ROWS, *FACE[name].shape),
            compression="gzip" if ranks else None,
            compression_opts=1 if ranks else None,
            fletcher32=True,
        )


def append_faces(file: Any, faces: NDArray[np.void]) -> None:
    """Add the faces of the next rows of `/embeddings`.

    Args:
        file: an open file after `create_faces`.
        faces: (n,) FACE.
    """
    for name, dataset in FACE_DATASETS.items():
        data = file[dataset]
        start = len(data)
        data.resize(start + len(faces), axis=0)
        data[start:] = faces[name]
