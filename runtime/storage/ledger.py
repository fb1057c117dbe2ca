"""The ledger: for every scanned row, what became of it and which file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import FACE, FACE_DATASETS, SAME_FILE, Status
from .format import offsets, read_vector_counts, stored_text
from .holders import Holders
from .part import Part
from .segment_reader import read_segments
from .segments import clip_detail

_NO_DETAIL, _NO_DIGEST, _NO_COUNT = np.zeros(1, "S1"), np.zeros((1, 16), np.uint8), np.zeros(1, np.uint16)


class Ledger:
    """The latest outcome of each row, over a finished file (when retrying) and the segments of a run, or over parts of
    finished files (when a new file is made from them).

    Owned by `with`.

    Attributes:
        status: (M,) uint8, a Status each; PENDING where nothing is known.
        source: (M,) int32, number of the file that holds the row; -1 where nothing is known.
        position: (M,) int64, index into that file's `/outcomes`; -1 where it has no row there that can be read.
        vector: (M,) int64, index into that file's `/embeddings`, of the first if it has several; -1 where not embedded.
        vector_counts: (M,) uint16, how many it has there, one after the other; 0 where not embedded.
        has_digests: whether every file holds the digests of its rows.
        has_faces: whether the files hold what is known of each face.
    """

    def __init__(self, rows: int, folder: Path | None = None, plan_id: str = "", base: Path | None = None) -> None:
        import h5py

        self.status: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.position: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.vector: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self.vector_counts: NDArray[np.uint16] = np.zeros(rows, np.uint16)
        self.has_faces = False
        self._own: list[bytes] = []  # details that no file holds
        self._own_detail: NDArray[np.int32] = np.full(rows, -1, np.int32)  # (M,) which of them
        self._holders = Holders(base)
        self._digests: list[bool] = []
        if base is not None:
            with h5py.File(base, "r") as file:
                outcomes = file["outcomes"]
                self._digests.append("digest" in outcomes)
                self.has_faces = "faces" in outcomes
                status = outcomes["status"][:]
                self._overlay(base, np.arange(rows), status, read_vector_counts(outcomes, status))
        for segment in read_segments(folder, plan_id) if folder is not None else ():
            self._digests.append(segment.digests)
            # A file without faces among others that have them is damaged, and asking it for its faces says so.
            self.has_faces |= segment.faces
            self._overlay(segment.path, segment.rows, segment.status, segment.vector_counts)

    @property
    def has_digests(self) -> bool:
        return bool(self._digests) and all(self._digests)

    def _overlay(
        self, path: Path, rows: NDArray[np.int64], status: NDArray[np.uint8], counts: NDArray[np.uint16]
    ) -> None:
        self.status[rows] = status
        self.source[rows] = self._holders.add(path)
        self.position[rows] = np.arange(len(rows))
        self.vector[rows] = np.where(counts > 0, offsets(counts), -1)
        self.vector_counts[rows] = counts

    def lay(self, part: Part, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        """Lay photographs of a finished file over some rows.

        Args:
            part: the file, which stays open as long as the ledger is.
            rows: (n,) int64.
            chosen: (n,) int64, which of the part's photographs they are.
        """
        self._digests.append(part.has_digests)
        self.has_faces |= part.has_faces
        self.status[rows] = part.status[chosen]
        self.source[rows] = self._holders.add(part.path, part)
        self.position[rows] = part.position[chosen]
        self.vector[rows] = part.vector[chosen]
        self.vector_counts[rows] = part.vector_counts[chosen]

    def settle(self, rows: NDArray[np.int64], status: Status, details: Sequence[str]) -> None:
        """Give rows without an embedding another outcome than their files hold.

        Args:
            rows: (n,) int64.
            status: not EMBEDDED.
            details: n reasons.
        """
        assert status is not Status.EMBEDDED
        self.status[rows], self.vector[rows], self.vector_counts[rows] = status, -1, 0
        self.explain(rows, details)

    def explain(self, rows: NDArray[np.int64], details: Sequence[str]) -> None:
        """Give rows another detail than their files hold; that one is not read."""
        self._own_detail[rows] = len(self._own) + np.arange(len(rows))
        self._own += map(clip_detail, details)

    def pending(self, *, retry: bool) -> NDArray[np.int64]:
        """Rows still to run, ascending; with `retry` the failed ones too."""
        again = [int(s) for s in Status if s == Status.PENDING or (retry and s.failed)]
        return np.flatnonzero(np.isin(self.status, again))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, D) of embedded rows, all of each one after the other, in the files' dtype."""
        each, index = self._each_vector(rows)
        return self._holders.gather("embeddings", self.source[each], index)

    def faces(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """(n,) FACE, aligned with `embeddings(rows)`."""
        each, index = self._each_vector(rows)
        found = np.empty(len(each), FACE)
        for name, dataset in FACE_DATASETS.items():
            found[name] = self._holders.gather(dataset, self.source[each], index)
        return found

    def face_counts(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(n,) faces found in each photograph; 0 where none were looked for."""
        found: NDArray[np.uint16] = self._of_outcomes("outcomes/faces", rows, _NO_COUNT)
        found = np.where(self.status[rows] == Status.DUPLICATE, 0, found).astype(np.uint16)
        return np.maximum(found, self.vector_counts[rows])

    def details(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """(n,) UTF-8 bytes."""
        own = self._own_detail[rows]
        index = np.where(own >= 0, -1, self.position[rows])
        found: NDArray[np.bytes_] = self._holders.gather("outcomes/detail", self.source[rows], index, _NO_DETAIL)
        changes = {int(i): self._own[own[i]] for i in np.flatnonzero(own >= 0)}
        if self._holders.parts:
            moved = np.flatnonzero((self.status[rows] == Status.DUPLICATE) & (own < 0))
            changes |= {int(i): self._moved(int(self.source[rows[i]]), bytes(found[i])) for i in moved}
        if changes:
            found = found.astype(f"S{max(found.itemsize, *map(len, changes.values()))}")
            found[list(changes)] = list(changes.values())
        return found

    def _moved(self, number: int, detail: bytes) -> bytes:
        """The detail of a duplicate; the path that it names lies below the root of the new file too."""
        same, prefix = SAME_FILE.encode(), stored_text(self._holders.parts[number].prefix)
        if not prefix or not detail.startswith(same):
            return detail
        return clip_detail((same + prefix + detail[len(same) :]).decode("utf-8", "backslashreplace"))

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 16) uint8, as stored by a run that skips duplicates."""
        found: NDArray[np.uint8] = self._of_outcomes("outcomes/digest", rows, _NO_DIGEST)
        return found

    def _of_outcomes(self, dataset: str, rows: NDArray[np.int64], missing: NDArray[Any]) -> NDArray[Any]:
        return self._holders.gather(dataset, self.source[rows], self.position[rows], missing)

    def _each_vector(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of every embedding of some rows: the row, and the index into its file's `/embeddings`."""
        counts = self.vector_counts[rows]
        each = np.repeat(rows, counts)
        return each, np.repeat(self.vector[rows] - offsets(counts), counts) + np.arange(len(each))

    def counts(self) -> dict[str, int]:
        """Rows by outcome, those that occur."""
        values = np.bincount(self.status, minlength=len(Status))
        return {s.label: int(values[s]) for s in Status if values[s]}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holders.close()
