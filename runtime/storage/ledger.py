"""The ledger: for every scanned row, what became of it and which file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Status
from .segments import open_segments


class Ledger:
    """The latest outcome of each row, over a finished file (when retrying) and the segments of a run.

    Attributes:
        status: (M,) uint8, a Status each; PENDING where nothing is known.
        source: (M,) int32, index into `files` of the one that holds the row; -1 where nothing is known.
        position: (M,) int64, index into that file's `/outcomes`.
        vector: (M,) int64, index into that file's `/embeddings`; -1 where not embedded.
        files: the open HDF5 files.
    """

    def __init__(self, rows: int, folder: Path, plan_id: str, base: Path | None = None) -> None:
        import h5py

        self.status: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.position: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.vector: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self._stack = ExitStack()
        bases = [] if base is None else [h5py.File(base, "r")]
        self.files: Sequence[Any] = [*bases, *open_segments(folder, plan_id)]
        for number, file in enumerate(self.files):
            self._stack.enter_context(file)
            self._overlay(number, file)

    def _overlay(self, number: int, file: Any) -> None:
        status = file["outcomes/status"][:]
        rows = file["outcomes/row"][:] if "row" in file["outcomes"] else np.arange(len(status))
        embedded = status == Status.EMBEDDED
        self.status[rows] = status
        self.source[rows] = number
        self.position[rows] = np.arange(len(rows))
        self.vector[rows] = np.where(embedded, np.cumsum(embedded) - 1, -1)

    def pending(self, *, retry: bool) -> NDArray[np.int64]:
        """Rows still to run, ascending; with `retry` the failed ones too."""
        again = [int(s) for s in Status if s == Status.PENDING or (retry and s.failed)]
        return np.flatnonzero(np.isin(self.status, again))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, D) of embedded rows, in the files' dtype."""
        return self._gather(rows, "embeddings", self.vector[rows])

    def details(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """(n,) UTF-8 bytes."""
        found: NDArray[np.bytes_] = self._gather(rows, "outcomes/detail", self.position[rows])
        return found

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 16) uint8, as stored by a run that skips duplicates."""
        found: NDArray[np.uint8] = self._gather(rows, "outcomes/digest", self.position[rows])
        return found

    def _gather(self, rows: NDArray[np.int64], dataset: str, index: NDArray[np.int64]) -> NDArray[Any]:
        """Items of `dataset` for rows that may lie in several files; each file is read in one contiguous piece."""
        source = self.source[rows]
        pieces = []
        for number in np.unique(source):
            here = np.flatnonzero(source == number)
            low, high = index[here].min(), index[here].max() + 1
            pieces.append((here, self.files[number][dataset][low:high][index[here] - low]))
        if len(pieces) == 1:
            return np.asarray(pieces[0][1])
        out = np.empty((len(rows), *pieces[0][1].shape[1:]), np.result_type(*(p.dtype for _, p in pieces)))
        for here, piece in pieces:
            out[here] = piece
        return out

    def counts(self) -> dict[str, int]:
        """Rows by outcome, those that occur."""
        values = np.bincount(self.status, minlength=len(Status))
        return {s.label: int(values[s]) for s in Status if values[s]}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
