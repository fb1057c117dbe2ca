"""The decisions about the rows of one open embedding file: faces become rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..storage.file import EmbeddingFile
from ..storage.format import stored_text
from .constraints import Constraints, State
from .store import Face, ReviewStore, Stored

_BLOCK_ROWS = 65_536
STATES: tuple[State, ...] = ("", "same", "different", "undecided")


class RowRules:
    """What decisions demand of the rows of a file. Decisions about faces that the file does not have have no rows.

    Attributes:
        clock: the state of the store.
        constraints: the decisions, among faces.
        face_of: the face of each row that a decision is about.
    """

    def __init__(self, stored: Stored, face_of: dict[int, int]) -> None:
        """Take the decisions, and the face of each row that they are about."""
        self.clock, self.constraints, self.face_of = stored.clock, Constraints(stored.decisions), face_of

    @classmethod
    def of(cls, embeddings: EmbeddingFile, stored: Stored | None = None) -> RowRules:
        """Read the decisions about an open file.

        Args:
            embeddings: an open embedding file.
            stored: the decisions; None to read them.
        Raises:
            StorageError: the file or the store is damaged.
        """
        stored = ReviewStore(embeddings.path).read() if stored is None else stored
        rows = find_rows(embeddings, stored.faces.values())
        return cls(stored, {rows[face]: number for number, face in stored.faces.items() if face in rows})

    def __bool__(self) -> bool:
        return bool(self.constraints.decisions)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows that decisions are about, ascending: (n,) int64."""
        return np.array(sorted(self.face_of), np.int64)

    def state(self, a: int, b: int) -> State:
        """What is decided about two rows, directly or by other decisions; "" for nothing."""
        if a not in self.face_of or b not in self.face_of:
            return ""
        return self.constraints.state(self.face_of[a], self.face_of[b])

    def states(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What is decided about n pairs of rows: (n,) uint8, places in STATES."""
        states = np.zeros(len(first), np.uint8)
        for place in np.flatnonzero(np.isin(first, self.rows) & np.isin(second, self.rows)).tolist():
            states[place] = STATES.index(self.state(int(first[place]), int(second[place])))
        return states

    def name_of(self, rows: Iterable[int]) -> str:
        """The name of the person whom rows show, by most of them; "" for none."""
        return self.constraints.name_of([self.face_of[row] for row in rows if row in self.face_of])

    def cluster_names(self, labels: NDArray[np.int32]) -> dict[int, str]:
        """The names of clusters: each the name of most of its named rows.

        Args:
            labels: (N,) int32, the cluster of each row; 0 for no cluster.
        """
        rows_of: dict[int, list[int]] = {}
        named = [row for row, face in self.face_of.items() if face in self.constraints.names]
        for row, label in zip(named, labels[named].tolist(), strict=True):
            if label:
                rows_of.setdefault(label, []).append(row)
        names = {label: self.name_of(rows) for label, rows in rows_of.items()}
        return {label: name for label, name in names.items() if name}


def faces_of(embeddings: EmbeddingFile, rows: Sequence[int]) -> list[Face]:
    """The faces of rows, in the given order.

    Raises:
        StorageError: the file is damaged.
    """
    places = embeddings.face_places(rows)
    return [
        Face(path) if place is None else Face(path, place.index, place.page or 0)
        for path, place in zip(embeddings.photo_paths(rows), places, strict=True)
    ]


def find_rows(embeddings: EmbeddingFile, faces: Iterable[Face]) -> dict[Face, int]:
    """Find the rows of those faces that a file has. Reads the names of all rows, a block at a time.

    Raises:
        StorageError: the file is damaged.
    """
    wanted = set(faces)
    found: dict[Face, int] = {}
    for rows in _rows_of_photos(embeddings, {face.path for face in wanted}):
        found |= {face: row for row, face in zip(rows, faces_of(embeddings, rows), strict=True) if face in wanted}
    return found


def known_paths(embeddings: EmbeddingFile, paths: Sequence[bytes]) -> set[bytes]:
    """Those of absolute paths of photos that a file has, with an embedding or without."""
    root = os.path.join(embeddings.root, b"")
    wanted = set(paths)
    return {root + name for name in embeddings.scanned_paths() if root + name in wanted}


def _rows_of_photos(embeddings: EmbeddingFile, paths: set[bytes]) -> Iterator[list[int]]:
    """The rows of photos at absolute paths, and perhaps others, block by block."""
    root = os.path.join(embeddings.root, b"")
    names = [stored_text(path[len(root) :]) for path in paths if path.startswith(root)]
    if not names:
        return
    wanted = np.array(sorted(names))
    for start in range(0, embeddings.rows, _BLOCK_ROWS):
        block = embeddings.column("image_paths", start, min(start + _BLOCK_ROWS, embeddings.rows))
        rows = start + np.flatnonzero(np.isin(block, wanted))
        if len(rows):
            yield rows.tolist()
