"""The ledger: for every scanned row, what became of it and which file holds it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, StorageError
from ..records import Status
from .segment_reader import DAMAGE, read_segments, refuse_system_error, set_aside

_OPEN_FILES = 16


class Ledger:
    """The latest outcome of each row, over a finished file (when retrying) and the segments of a run.

    A long run has thousands of segments, so few are open at a time. Owned by `with`.

    Attributes:
        status: (M,) uint8, a Status each; PENDING where nothing is known.
        source: (M,) int32, number of the file that holds the row; -1 where nothing is known.
        position: (M,) int64, index into that file's `/outcomes`.
        vector: (M,) int64, index into that file's `/embeddings`; -1 where not embedded.
        has_digests: whether every file holds the digests of its rows.
    """

    def __init__(self, rows: int, folder: Path, plan_id: str, base: Path | None = None) -> None:
        import h5py

        self.status: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.position: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.vector: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self._base = base
        self._paths: list[Path] = []
        self._open: OrderedDict[int, Any] = OrderedDict()
        digests = []
        if base is not None:
            with h5py.File(base, "r") as file:
                digests.append("digest" in file["outcomes"])
                self._overlay(base, np.arange(rows), file["outcomes/status"][:])
        for segment in read_segments(folder, plan_id):
            digests.append(segment.digests)
            self._overlay(segment.path, segment.rows, segment.status)
        self.has_digests = bool(digests) and all(digests)

    def _overlay(self, path: Path, rows: NDArray[np.int64], status: NDArray[np.uint8]) -> None:
        embedded = status == Status.EMBEDDED
        self.status[rows] = status
        self.source[rows] = len(self._paths)
        self.position[rows] = np.arange(len(rows))
        self.vector[rows] = np.where(embedded, np.cumsum(embedded) - 1, -1)
        self._paths.append(path)

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
            pieces.append((here, self._read(int(number), dataset, low, high)[index[here] - low]))
        if len(pieces) == 1:
            return np.asarray(pieces[0][1])
        out = np.empty((len(rows), *pieces[0][1].shape[1:]), np.result_type(*(p.dtype for _, p in pieces)))
        for here, piece in pieces:
            out[here] = piece
        return out

    def _read(self, number: int, dataset: str, start: int, stop: int) -> NDArray[Any]:
        """One piece of one file; a segment that is damaged there is set aside."""
        try:
            found: NDArray[Any] = self._file(number)[dataset][start:stop]
        except DAMAGE as err:
            path = self._paths[number]
            refuse_system_error(err, path)
            if path == self._base:
                raise StorageError(
                    f"{path}, whose failures are being retried, is damaged ({err}). Start over with --force"
                ) from err
            set_aside(path, str(err))
            raise DamagedError(
                f"the segment {path} was damaged and has been set aside; run the same command again"
            ) from err
        return found

    def _file(self, number: int) -> Any:
        """An open file; the one used longest ago is closed to make room."""
        import h5py

        if number not in self._open:
            if len(self._open) == _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[number] = h5py.File(self._paths[number], "r")
        self._open.move_to_end(number)
        return self._open[number]

    def counts(self) -> dict[str, int]:
        """Rows by outcome, those that occur."""
        values = np.bincount(self.status, minlength=len(Status))
        return {s.label: int(values[s]) for s in Status if values[s]}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
