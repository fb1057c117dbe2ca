"""Finished files that a new one is made from, and what of each goes into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .file import EmbeddingFile
from .format import offsets


@dataclass(frozen=True, slots=True)
class Part:
    """What of a finished file goes into a new one; P photographs.

    Attributes:
        path: the file.
        file: it, open; whoever opened it closes it.
        paths: gives the exact P paths, in scan order.
        status: (P,) uint8.
        position: (P,) int64, row in `/outcomes`; -1 where that cannot be read.
        vector: (P,) int64, row in `/embeddings`, of the first if it has several; -1 for none.
        vector_counts: (P,) uint16.
        has_digests, has_faces: what it holds.
        keep: (P,) bool.
        prefix: what stands before its paths in the new file; empty, or ends in a slash.
    """

    path: Path
    file: Any
    paths: Callable[[], Iterator[bytes]]
    status: NDArray[np.uint8]
    position: NDArray[np.int64]
    vector: NDArray[np.int64]
    vector_counts: NDArray[np.uint16]
    has_digests: bool
    has_faces: bool
    keep: NDArray[np.bool_]
    prefix: bytes = b""

    @classmethod
    def of(cls, file: EmbeddingFile, keep: NDArray[np.bool_] | None = None, prefix: bytes = b"") -> Part:
        """All of a file, or some of its photos.

        Args:
            file: an open file.
            keep: (M,) bool; None for all.
            prefix: what stands before its paths in the new file.
        """
        counts, outcomes = file.vector_counts, file.hdf5["outcomes"]
        return cls(
            file.path,
            file.hdf5,
            file.scanned_paths,
            file.status,
            np.arange(len(file.status)),
            np.where(counts > 0, offsets(counts), -1),
            counts,
            "digest" in outcomes,
            "faces" in outcomes,
            np.ones(len(file.status), bool) if keep is None else keep,
            prefix,
        )
