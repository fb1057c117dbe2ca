"""The ledger: the outcome of every scanned photo, and the file that holds it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, StorageError
from ..records import (
    FACE,
    FACE_DATASETS,
    LATER_DATASETS,
    PAGE_DATASET,
    SAME_FILE,
    Status,
    attribute_datasets,
    unread_attributes,
)
from .file import EmbeddingFile
from .format import check_entries, display_text, offsets, stored_text
from .layout import check_item
from .opening import DAMAGE, open_hdf5, refuse_system_error
from .salvage import read_stored
from .segments import clip_detail, read_segments, set_aside

_NO_DETAIL, _NO_DIGEST, _NO_COUNT = np.zeros(1, "S1"), np.zeros((1, 16), np.uint8), np.zeros(1, np.uint16)
_MAX_OPEN_FILES = 16
_MAX_SPAN_ROWS = 65_536  # read in one piece, even if only a few of them are needed


@dataclass(frozen=True, slots=True)
class PhotoColumns:
    """The outcomes and positions of P photos of a finished file.

    Attributes:
        status: (P,) uint8, a records.Status each.
        position: (P,) int64, row in `/outcomes`; -1 if it cannot be read.
        vector: (P,) int64, first row in `/embeddings`; -1 for none.
        vector_counts: (P,) uint16, number of consecutive rows in `/embeddings`.
    """

    status: NDArray[np.uint8]
    position: NDArray[np.int64]
    vector: NDArray[np.int64]
    vector_counts: NDArray[np.uint16]

    @classmethod
    def in_order(cls, status: NDArray[np.uint8], counts: NDArray[np.uint16]) -> PhotoColumns:
        """Make the columns of all photos of an intact file."""
        return cls(status, np.arange(len(status)), np.where(counts > 0, offsets(counts), -1), counts)

    def take(self, chosen: NDArray[np.int64]) -> PhotoColumns:
        """Select photos by their numbers, (n,) int64."""
        return PhotoColumns(self.status[chosen], self.position[chosen], self.vector[chosen], self.vector_counts[chosen])


@dataclass(frozen=True, slots=True)
class Part:
    """The photos that a new file takes from a finished one.

    Attributes:
        path: the finished file.
        hdf5: the open h5py file; the caller closes it.
        paths: returns an iterator over the exact paths of its P photos, in scan order.
        photos: P photos.
        keep: (P,) bool, the photos to take.
        has_digests, has_faces: whether the file has digests and faces.
        prefix: prefix of its paths in the new file; empty, or ends in a slash.
        lost: datasets that a damaged file cannot give, and that rows can do without.
    """

    path: Path
    hdf5: Any
    paths: Callable[[], Iterator[bytes]]
    photos: PhotoColumns
    keep: NDArray[np.bool_]
    has_digests: bool
    has_faces: bool
    prefix: bytes = b""
    lost: frozenset[str] = frozenset()

    @classmethod
    def of(cls, file: EmbeddingFile, keep: NDArray[np.bool_] | None = None, prefix: bytes = b"") -> Part:
        """Take all photos of an open file, or some of them.

        Args:
            file: the file; keep it open as long as the part is used.
            keep: (M,) bool; None for all.
            prefix: prefix of its paths in the new file.
        """
        photos = PhotoColumns.in_order(file.status, file.vector_counts)  # first: it checks the outcomes
        outcomes = file.hdf5["outcomes"]
        return cls(
            path=file.path,
            hdf5=file.hdf5,
            paths=file.scanned_paths,
            photos=photos,
            keep=np.ones(len(file.status), bool) if keep is None else keep,
            has_digests="digest" in outcomes,
            has_faces="faces" in outcomes,
            prefix=prefix,
        )


class Ledger:
    """The latest outcome of each row.

    It combines a finished file (when retrying) with the segments of a run, or parts of finished files (when a new file
    is made from them). Owned by `with`.

    Attributes:
        status: (M,) uint8, a Status each; PENDING without an outcome.
        source: (M,) int32, number of the file that holds the row; -1 without an outcome.
        position: (M,) int64, index into that file's `/outcomes`; -1 if it has no readable row there.
        vector: (M,) int64, first index into that file's `/embeddings`; -1 if not embedded.
        vector_counts: (M,) uint16, number of consecutive embeddings there; 0 if not embedded.
        has_digests: whether every file has the digests of its rows.
        has_faces: whether the files have faces.
    """

    def __init__(self, rows: int, folder: Path | None = None, plan_id: str = "", base: Path | None = None) -> None:
        self.status: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.position: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.vector: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self.vector_counts: NDArray[np.uint16] = np.zeros(rows, np.uint16)
        self.has_faces = False
        self._own: list[bytes] = []  # details that no file holds
        self._own_detail: NDArray[np.int32] = np.full(rows, -1, np.int32)  # (M,) index into `_own`, or -1
        self._files = FileSet(base)
        self._digests: list[bool] = []
        if base is not None:
            with EmbeddingFile(base) as file:
                part = Part.of(file)
                self._note_columns(part.has_digests, part.has_faces)
                self._put(self._files.add(base), np.arange(rows), part.photos)
        for segment in read_segments(folder, plan_id, rows) if folder is not None else ():
            self._note_columns(segment.digests, segment.faces)
            photos = PhotoColumns.in_order(segment.status, segment.vector_counts)
            self._put(self._files.add(segment.path), segment.rows, photos)

    @property
    def has_digests(self) -> bool:
        return bool(self._digests) and all(self._digests)

    def _note_columns(self, digests: bool, faces: bool) -> None:
        self._digests.append(digests)
        # A file without faces among files with faces is damaged; reading its faces raises the error.
        self.has_faces |= faces

    def _put(self, number: int, rows: NDArray[np.int64], photos: PhotoColumns) -> None:
        """Set rows to the photos of a file."""
        self.status[rows] = photos.status
        self.source[rows] = number
        self.position[rows] = photos.position
        self.vector[rows] = photos.vector
        self.vector_counts[rows] = photos.vector_counts

    def add_part(self, part: Part, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        """Take photos of a finished file as rows.

        Args:
            part: a part of the file; keep the file open as long as the ledger is used.
            rows: (n,) int64.
            chosen: (n,) int64, numbers of the part's photos.
        """
        self._note_columns(part.has_digests, part.has_faces)
        self._put(self._files.add(part.path, part), rows, part.photos.take(chosen))

    def set_outcomes(self, rows: NDArray[np.int64], status: Status, details: Sequence[str]) -> None:
        """Give rows an outcome without an embedding, instead of the one in their files.

        Args:
            rows: (n,) int64.
            status: not EMBEDDED.
            details: n reasons.
        """
        assert status is not Status.EMBEDDED
        self.status[rows], self.vector[rows], self.vector_counts[rows] = status, -1, 0
        self.set_details(rows, details)

    def set_details(self, rows: NDArray[np.int64], details: Sequence[str]) -> None:
        """Give rows a detail instead of the one in their files, which is not read."""
        self._own_detail[rows] = len(self._own) + np.arange(len(rows))
        self._own += map(clip_detail, details)

    def pending(self, *, retry: bool) -> NDArray[np.int64]:
        """Rows to run, ascending; with `retry` including failed ones."""
        again = [int(s) for s in Status if s == Status.PENDING or (retry and s.failed)]
        return np.flatnonzero(np.isin(self.status, again))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, D) embeddings of rows, in order, in the dtype of the files; those of one row are consecutive."""
        each, index = self._each_vector(rows)
        return self._files.gather("embeddings", self.source[each], index)

    def faces(self, rows: NDArray[np.int64], *, pages: bool = False) -> NDArray[np.void]:
        """(n,) FACE, aligned with `embeddings(rows)`; with `pages` from files whose faces name their pages."""
        each, index = self._each_vector(rows)
        faces = np.zeros(len(each), FACE)
        if pages:
            faces["page"] = self._files.gather(PAGE_DATASET, self.source[each], index)
        for name, dataset in FACE_DATASETS.items():
            faces[name] = self._files.gather(dataset, self.source[each], index)
        for name, dataset in LATER_DATASETS.items():
            faces[name] = self._files.gather_known(dataset, self.source[each], index, np.full(1, np.nan, np.float32))
        return faces

    def attributes(self, rows: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.void]:
        """(n,) ATTRIBUTES of some names, aligned with `embeddings(rows)`; unread where a file lacks them."""
        each, index = self._each_vector(rows)
        attributes, unread = unread_attributes(len(each)), unread_attributes(1)
        for name, dataset in attribute_datasets(names).items():
            attributes[name] = self._files.gather_known(dataset, self.source[each], index, unread[name])
        return attributes

    def face_counts(self, rows: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(n,) number of faces in each photo; 0 if faces were not detected."""
        counts: NDArray[np.uint16] = self._of_outcomes("outcomes/faces", rows, _NO_COUNT)
        counts = np.where(self.status[rows] == Status.DUPLICATE, 0, counts).astype(np.uint16)
        return np.maximum(counts, self.vector_counts[rows])

    def details(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """(n,) UTF-8 bytes."""
        own = self._own_detail[rows]
        index = np.where(own >= 0, -1, self.position[rows])
        details: NDArray[np.bytes_] = self._files.gather("outcomes/detail", self.source[rows], index, _NO_DETAIL)
        changes = {int(i): self._own[own[i]] for i in np.flatnonzero(own >= 0)}
        if self._files.parts:
            duplicates = np.flatnonzero((self.status[rows] == Status.DUPLICATE) & (own < 0))
            changes |= {int(i): self._below_prefix(int(self.source[rows[i]]), bytes(details[i])) for i in duplicates}
        if changes:
            details = details.astype(f"S{max(details.itemsize, *map(len, changes.values()))}")
            details[list(changes)] = list(changes.values())
        return details

    def _below_prefix(self, number: int, detail: bytes) -> bytes:
        """The detail of a duplicate, with its path changed to be below the root of the new file."""
        same, prefix = SAME_FILE.encode(), stored_text(self._files.parts[number].prefix)
        if not prefix or not detail.startswith(same):
            return detail
        return clip_detail(display_text(same + prefix + detail[len(same) :]))

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 16) uint8, as stored by a run that skips duplicates."""
        digests: NDArray[np.uint8] = self._of_outcomes("outcomes/digest", rows, _NO_DIGEST)
        return digests

    def _of_outcomes(self, dataset: str, rows: NDArray[np.int64], missing: NDArray[Any]) -> NDArray[Any]:
        return self._files.gather(dataset, self.source[rows], self.position[rows], missing)

    def _each_vector(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For every embedding of rows: the row, and the index into its file's `/embeddings`."""
        counts = self.vector_counts[rows]
        each = np.repeat(rows, counts)
        return each, np.repeat(self.vector[rows] - offsets(counts), counts) + np.arange(len(each))

    def counts(self) -> dict[str, int]:
        """Number of rows for each outcome that occurs."""
        values = np.bincount(self.status, minlength=len(Status))
        return {s.label: int(values[s]) for s in Status if values[s]}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.close()


class FileSet:
    """The segments and finished files of a ledger, by number; few of them are open at a time.

    Attributes:
        parts: parts of the finished files that the caller keeps open, by number.
    """

    def __init__(self, base: Path | None) -> None:
        self.parts: dict[int, Part] = {}
        self._base = base
        self._paths: list[Path] = []
        self._open: OrderedDict[int, Any] = OrderedDict()

    def add(self, path: Path, part: Part | None = None) -> int:
        """Add a file and return its number."""
        number = len(self._paths)
        self._paths.append(path)
        if part is not None:
            self.parts[number] = part
        return number

    def gather(
        self,
        dataset: str,
        source: NDArray[np.int32],
        index: NDArray[np.int64],
        missing: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Read items of a dataset from several files.

        Args:
            dataset: name of the dataset.
            source: (n,) numbers of files.
            index: (n,) positions in them; -1 for an item that no file holds.
            missing: (1, ...) zeros, the value of missing items.
        Raises:
            DamagedError: a segment is damaged and has been set aside.
            StorageError: a finished file is damaged.
        """
        pieces = [
            (positions, piece)
            for number in np.unique(source[index >= 0])
            for positions, piece in self._pieces(
                int(number), dataset, np.flatnonzero((source == number) & (index >= 0)), index
            )
        ]
        if len(pieces) == 1 and len(pieces[0][0]) == len(index):
            return np.asarray(pieces[0][1])
        like = [piece for _, piece in pieces] + ([] if missing is None else [missing])
        out = np.zeros((len(index), *like[0].shape[1:]), np.result_type(*(piece.dtype for piece in like)))
        for positions, piece in pieces:
            out[positions] = piece
        return out

    def gather_known(
        self, dataset: str, source: NDArray[np.int32], index: NDArray[np.int64], unknown: NDArray[Any]
    ) -> NDArray[Any]:
        """Like `gather`, for a dataset that some files lack: `unknown`, (1,), for their items."""
        lacking = [number for number in np.unique(source[index >= 0]).tolist() if not self._has(number, dataset)]
        known = np.where(np.isin(source, lacking), -1, index)
        return np.where(known < 0, unknown, self.gather(dataset, source, known, np.zeros_like(unknown)))

    def _has(self, number: int, dataset: str) -> bool:
        """Whether a file has a dataset."""
        with self._reporting_damage(number):
            part = self.parts.get(number)
            return dataset in self._file(number) and not (part is not None and dataset in part.lost)
        return False

    def _pieces(
        self, number: int, dataset: str, positions: NDArray[np.int64], index: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield the items of one file in contiguous pieces; chunks without any of them are not read."""
        positions = positions[np.argsort(index[positions], kind="stable")]
        ascending = index[positions]
        with self._reporting_damage(number):
            data = check_item(self._file(number), dataset, salvage=True)
            chunk = data.chunks[0] if data.chunks else _MAX_SPAN_ROWS
        apart = (np.diff(ascending) > chunk) | (np.diff((ascending - ascending[0]) // _MAX_SPAN_ROWS) > 0)
        for run in np.split(positions, np.flatnonzero(apart) + 1):
            low, high = int(index[run[0]]), int(index[run[-1]]) + 1
            with self._reporting_damage(number):
                piece = read_stored(data, low, high)
                piece = piece if len(piece) == len(run) else piece[index[run] - low]
                if number in self.parts:  # of a finished file, which anybody may have made
                    check_entries(dataset, piece, low)
            yield run, piece

    @contextmanager
    def _reporting_damage(self, number: int) -> Iterator[None]:
        """Translate errors of a block that reads one file; a damaged segment is set aside."""
        try:
            yield
        except DAMAGE as err:
            path = self._paths[number]
            refuse_system_error(err, path)
            fix = f"Save its intact rows with: facemill repair {path}"
            if number in self.parts:
                raise StorageError(f"{path} is damaged ({err}), and nothing was changed. {fix}") from err
            if path == self._base:
                raise StorageError(
                    f"{path}, whose failures are being retried, is damaged ({err}). Start over with --force. {fix}"
                ) from err
            set_aside(path, str(err))
            raise DamagedError(
                f"the segment {path} was damaged and has been set aside. Run the same command again"
            ) from err

    def _file(self, number: int) -> Any:
        """Open a file. If too many are open, the least recently used one is closed."""
        if number in self.parts:
            return self.parts[number].hdf5
        if number not in self._open:
            if len(self._open) == _MAX_OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[number] = open_hdf5(self._paths[number])
        self._open.move_to_end(number)
        return self._open[number]

    def close(self) -> None:
        """Close the files that the set has opened."""
        for file in self._open.values():
            file.close()
        self._open.clear()
