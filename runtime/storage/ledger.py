"""The ledger: for every scanned row, what became of it and which file holds it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, StorageError
from ..records import FACE, FACE_DATASETS, Status
from .segment_reader import DAMAGE, read_segments, read_vector_counts, refuse_system_error, set_aside

_OPEN_FILES = 16


class Ledger:
    """The latest outcome of each row, over a finished file (when retrying) and the segments of a run.

    A long run has thousands of segments, so few are open at a time. Owned by `with`.

    Attributes:
        status: (M,) uint8, a Status each; PENDING where nothing is known.
        source: (M,) int32, number of the file that holds the row; -1 where nothing is known.
        position: (M,) int64, index into that file's `/outcomes`.
        vector: (M,) int64, index into that file's `/embeddings`, of the first if it has several; -1 where not embedded.
        vector_counts: (M,) uint16, how many it has there, one after the other; 0 where not embedded.
        has_digests: whether every file holds the digests of its rows.
        has_faces: whether the files hold what is known of each face.
    """

    def __init__(self, rows: int, folder: Path, plan_id: str, base: Path | None = None) -> None:
        import h5py

        self.status: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.position: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.vector: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self.vector_counts: NDArray[np.uint16] = np.zeros(rows, np.uint16)
        self.has_faces = False
        self._base = base
        self._paths: list[Path] = []
        self._open: OrderedDict[int, Any] = OrderedDict()
        digests = []
        if base is not None:
            with h5py.File(base, "r") as file:
                outcomes = file["outcomes"]
                digests.append("digest" in outcomes)
                self.has_faces = "faces" in outcomes
                status = outcomes["status"][:]
                self._overlay(base, np.arange(rows), status, read_vector_counts(outcomes, status))
        for segment in read_segments(folder, plan_id):
            digests.append(segment.digests)
            # A file without faces among others that have them is damaged, and asking it for its faces says so.
            self.has_faces |= segment.faces
            self._overlay(segment.path, segment.rows, segment.status, segment.vector_counts)
        self.has_digests = bool(digests) and all(digests)

    def _overlay(
        self, path: Path, rows: NDArray[np.int64], status: NDArray[np.uint8], counts: NDArray[np.uint16]
    ) -> None:
        self.status[rows] = status
        self.source[rows] = len(self._paths)
        self.position[rows] = np.arange(len(rows))
        self.vector[rows] = np.where(counts > 0, np.cumsum(counts, dtype=np.int64) - counts, -1)
        self.vector_counts[rows] = counts
        self._paths.append(path)

    def pending(self, *, retry: bool) -> NDArray[np.int64]:
        """Rows still to run, ascending; with `retry` the failed ones too."""
        again = [int(s) for s in Status if s == Status.PENDING or (retry and s.failed)]
        return np.flatnonzero(np.isin(self.status, again))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, D) of embedded rows, all of each one after the other, in the files' dtype."""
        each, index = self._each_vector(rows)
        return self._gather(each, "embeddings", index)

    def faces(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """(n,) FACE, aligned with `embeddings(rows)`."""
        each, index = self._each_vector(rows)
        found = np.empty(len(each), FACE)
        for name, dataset in FACE_DATASETS.items():
            found[name] = self._gather(each, dataset, index)
        return found

    def face_counts(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(n,) faces found in each photograph; 0 where none were looked for."""
        found: NDArray[np.uint16] = self._gather(rows, "outcomes/faces", self.position[rows])
        return found

    def details(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """(n,) UTF-8 bytes."""
        found: NDArray[np.bytes_] = self._gather(rows, "outcomes/detail", self.position[rows])
        return found

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 16) uint8, as stored by a run that skips duplicates."""
        found: NDArray[np.uint8] = self._gather(rows, "outcomes/digest", self.position[rows])
        return found

    def _each_vector(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of every embedding of some rows: the row, and the index into its file's `/embeddings`."""
        counts = self.vector_counts[rows]
        before = np.cumsum(counts, dtype=np.int64) - counts
        each = np.repeat(rows, counts)
        return each, np.repeat(self.vector[rows] - before, counts) + np.arange(len(each))

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
