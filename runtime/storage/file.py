"""Read a finished embedding file. docs/format.md describes its content.

This is the only reader of finished files. Only `verify` and `repair` read damaged ones (salvage.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StorageError
from ..records import ALL_FACE_DATASETS, FORMAT_VERSIONS, MAX_NORM, FacePlace, Status
from .columns import needed_columns, read_attributes_of, read_faces
from .contract import EmbeddingContract
from .format import (
    OUR_DATASETS,
    check_entries,
    count_outcomes,
    display_text,
    offsets,
    read_raw_paths,
    read_scanned_paths,
    read_vector_counts,
)
from .layout import check_item, check_layout
from .opening import DAMAGE, open_hdf5, read_attributes, refuse_system_error

_BLOCK_BYTES = 32 << 20
_BLOCK_ROWS = 65_536


class EmbeddingFile:
    """A finished embedding file: N unit vectors, the photos that they come from, and the outcomes of all M photos.

    A row is an embedding. Rows are in scan order; the faces of one photo are neighbours. A photo that failed has an
    outcome and no row. Opening reads only the metadata; vectors, paths, faces and outcomes are read on first use.
    Use it in a `with` block, or call `close`. It is read-only, and one thread at a time may use it.

    Attributes:
        path: the path as given.
        rows: N, the number of embeddings.
        dimension: D, the length of an embedding.
        dtype: "float32" or "float16", of the stored embeddings.
        metadata: the attributes of `/metadata`.
        contract: the settings that all rows share: model, crop, alignment, precision and so on.
        root: absolute folder that all paths are below, exact bytes.
        source: run id, size in bytes and time of modification; they differ between any two files.
        has_faces, has_pages: whether the file has the position of each face in its photo, and its page.
    Raises:
        StorageError: the file is missing, is not an embedding file, or is damaged.

    Example:
        >>> with EmbeddingFile("people.h5") as file:
        ...     print(file.rows, file.dimension, file.paths)
        ...     print(file.vectors.shape, file.vectors.dtype)
        ...     print(file.outcomes)
        3 4 ['a.jpg', 'c.jpg', 'd.jpg']
        (3, 4) float32
        {'embedded': 3, 'corrupt': 1}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._hdf5 = open_hdf5(self.path)
        except DAMAGE as err:
            raise self._unusable(err) from err
        try:
            check_layout(self.hdf5)
            self.metadata = read_attributes(self.hdf5)
            self.contract = self._check()
            self.root = os.fsencode(self.contract.root)
            stat = os.fstat(self.hdf5.id.get_vfd_handle())
            self.source = {"run_id": self.metadata["run_id"], "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        except DAMAGE as err:
            self.close()
            raise self._unusable(err) from err

    @property
    def hdf5(self) -> Any:
        """The open h5py file."""
        if self._hdf5:
            return self._hdf5
        raise ConfigError(f"{self.path} was closed; expected: an open file. Use it inside its `with` block")

    def _check(self) -> EmbeddingContract:
        """Raise ValueError unless version, dimension and dtype are the same everywhere, and no part is missing."""
        if self.metadata.get("format_version") not in FORMAT_VERSIONS:
            raise ValueError(f"its format version is {self.metadata.get('format_version')}")
        for name in ("run_id", "dimension", "contract"):
            if name not in self.metadata:
                raise ValueError(f"the attribute {name} of /metadata is missing")
        contract = EmbeddingContract.from_json(self.metadata["contract"])
        contract.require_whole(self.metadata)
        vectors = self.hdf5["embeddings"]
        self.dtype = str(vectors.dtype)
        self.has_faces = "face_index" in self.hdf5
        self.has_pages = self.has_faces and contract.all_pages
        self.rows, self.dimension = map(int, vectors.shape)
        if self.metadata["dimension"] != self.dimension:
            raise ValueError(f"/embeddings has {self.dimension} columns, expected: {self.metadata['dimension']}")
        for name in needed_columns(contract, faces=self.has_faces):
            if name not in self.hdf5:
                raise ValueError(f"/{name} is missing")
        contract = contract.completed(self.dtype, self.dimension)
        self.metadata["contract"] = contract.to_json()
        return contract

    def _unusable(self, err: Exception) -> StorageError:
        refuse_system_error(err, self.path)
        return StorageError(
            f"{self.path} is not an embedding file of facemill, or it is damaged ({err}); expected: format version "
            f"{' or '.join(map(str, FORMAT_VERSIONS))}. If it was one, save its intact rows with: facemill repair "
            f"{self.path}"
        )

    def _damaged(self, dataset: str, err: Exception) -> StorageError:
        refuse_system_error(err, self.path)
        return StorageError(
            f"{self.path} is damaged in /{dataset} ({err}). Restore it from a copy, or save its intact rows with: "
            f"facemill repair {self.path}"
        )

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All embeddings, (N, D) float32, unit rows. They stay in memory; for a large file use `blocks`.

        Raises:
            StorageError: the rows are damaged.
        """
        return np.concatenate([np.empty((0, self.dimension), np.float32), *self.blocks()])

    @cached_property
    def paths(self) -> list[str]:
        """The path of each row's photo below `root`, N strings; for a few of them use `names`.

        Raises:
            StorageError: the paths are damaged.
        """
        blocks = (self.column("image_paths", start, start + _BLOCK_ROWS) for start in range(0, self.rows, _BLOCK_ROWS))
        return [display_text(name) for block in blocks for name in block.tolist()]

    @cached_property
    def faces(self) -> NDArray[np.void] | None:
        """The face of each row, (N,) records.FACE: box, landmarks, score; None for a file of aligned crops.

        Raises:
            StorageError: the faces are damaged.
        """
        return read_faces(self) if self.has_faces else None

    @cached_property
    def attributes(self) -> NDArray[np.void] | None:
        """Age and gender of each row as far as the file has them, (N,) records.ATTRIBUTES; None if it has neither.

        Raises:
            StorageError: they are damaged.
        """
        return read_attributes_of(self) if self.contract.attributes_read else None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield all embeddings in order, (n, D) float32, C-contiguous, 32 MiB at a time.

        Raises:
            StorageError: the rows are damaged.
        """
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for start in range(0, self.rows, step):
            yield self.block(start, min(start + step, self.rows))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Embeddings of rows `start` to `stop`, (stop - start, D) float32, C-contiguous; a new array.

        Raises:
            StorageError: the rows are damaged, or a row is not finite or longer than `MAX_NORM`.
        """
        try:
            block = np.ascontiguousarray(self.hdf5["embeddings"][start:stop], np.float32)
        except DAMAGE as err:
            raise self._damaged(f"embeddings, rows {start} to {stop}", err) from err
        squares = np.einsum("ij,ij->i", block, block)  # (n,) float32; a sum with a NaN is NaN
        wrong = np.flatnonzero(~(squares <= MAX_NORM**2))
        if len(wrong):
            raise StorageError(
                f"{self.path}: row {start + wrong[0]} of /embeddings has length {np.sqrt(squares[wrong[0]]):.4g}; "
                f"expected: 1. Restore the file from a copy, or save its other rows with: facemill repair {self.path}"
            )
        return block

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of (n,) ascending rows, (n, D) float32; a new array. Reads the file once, in bounded memory.

        Raises:
            StorageError: the rows of the file are damaged.
        """
        vectors = np.empty((len(rows), self.dimension), np.float32)
        start = 0
        for block in self.blocks():
            first, last = np.searchsorted(rows, (start, start + len(block)))
            vectors[first:last] = block[rows[first:last] - start]
            start += len(block)
        return vectors

    def vectors_at(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of (n,) rows in any order, (n, D) float32; reads only the chunks that hold them.

        Raises:
            StorageError: the rows of the file are damaged.
        """
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for position, vector in enumerate(self._entries("embeddings", rows)):
            vectors[position] = vector
        return vectors

    def names(self, rows: Sequence[int]) -> list[str]:
        """The paths of rows below `root`, in the given order. Bytes that are not UTF-8 become \\xNN.

        Raises:
            StorageError: the paths are damaged.
        """
        return [display_text(name) for name in self._entries("image_paths", rows)]

    def photo_path(self, row: int) -> bytes:
        """The absolute path of the photo of a row, exact bytes."""
        return self.photo_paths([row])[0]

    def photo_names(self, rows: Sequence[int]) -> list[bytes]:
        """The paths of the photos of rows, relative to `root`, exact bytes, in the given order.

        Raises:
            StorageError: the paths are damaged.
        """
        names = zip(rows, self._entries("image_paths", rows), strict=True)
        return [self.raw_paths.get(row, bytes(name)) for row, name in names]

    def photo_paths(self, rows: Sequence[int]) -> list[bytes]:
        """The absolute paths of the photos of rows, exact bytes, in the given order.

        Raises:
            StorageError: the paths are damaged.
        """
        return [os.path.join(self.root, name) for name in self.photo_names(rows)]

    def face_places(self, rows: Sequence[int]) -> list[FacePlace | None]:
        """The place of each row's face in its photo, in the given order; None in a file of aligned crops.

        Raises:
            StorageError: the faces are damaged.
        """
        if not self.has_faces:
            return [None] * len(rows)
        names = ["face_index", "box", *(["page"] if self.has_pages else [])]
        entries = zip(*(self._entries(ALL_FACE_DATASETS[name], rows) for name in names), strict=True)
        return [FacePlace(int(rank), tuple(box.tolist()), *map(int, page)) for rank, box, *page in entries]

    def photo_numbers(self) -> NDArray[np.int64]:
        """(N,) int64, a number for the photo of each row; the faces of one photo share it.

        Raises:
            StorageError: the outcomes are damaged.
        """
        if "outcomes/embeddings" not in self.hdf5:  # one row per photo
            return np.arange(self.rows)
        try:
            counts = self.hdf5["outcomes/embeddings"][:]
            if int(counts.sum(dtype=np.int64)) != self.rows:
                raise ValueError(f"its photos have {int(counts.sum(dtype=np.int64))} rows; expected: {self.rows}")
        except DAMAGE as err:
            raise self._damaged("outcomes/embeddings", err) from err
        return np.repeat(np.arange(len(counts)), counts)

    @cached_property
    def raw_paths(self) -> dict[int, bytes]:
        """The few paths that are not UTF-8, exact bytes below `root`, by row; the faces of one photo share a path.

        Raises:
            StorageError: the outcomes are damaged.
        """
        if "outcomes/raw_paths" not in self.hdf5:
            return {}
        counts = self.vector_counts.astype(np.int64)
        first = offsets(counts)
        try:
            return {
                row: path
                for photo, path in read_raw_paths(self.hdf5["outcomes"]).items()
                for row in range(int(first[photo]), int(first[photo] + counts[photo]))
            }
        except DAMAGE as err:
            raise self._damaged("outcomes", err) from err

    # Photos: one for each scanned path

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of photos for each outcome that occurs: {"embedded": 98, "no-face": 2}.

        Raises:
            StorageError: the outcomes are damaged.
        """
        return count_outcomes(self.status)

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """(M,) uint8, the records.Status of each photo, in scan order.

        Raises:
            StorageError: the outcomes are damaged.
        """
        return self._photos[0]

    @cached_property
    def vector_counts(self) -> NDArray[np.uint16]:
        """(M,) uint16, number of rows of each photo.

        Raises:
            StorageError: the outcomes are damaged.
        """
        return self._photos[1]

    @cached_property
    def _photos(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        try:
            for name in ("path", "detail"):
                check_item(self.hdf5, f"outcomes/{name}")
            status: NDArray[np.uint8] = check_item(self.hdf5, "outcomes/status")[:]
            counts = read_vector_counts(self.hdf5["outcomes"], status)
            if self.rows != int(counts.sum(dtype=np.int64)):
                raise ValueError(f"/embeddings has {self.rows} rows; expected: {int(counts.sum(dtype=np.int64))}")
            if not status.all():
                raise ValueError(f"the outcome of row {int(status.argmin())} is missing")
            wrong = np.flatnonzero((status > max(Status)) | ((counts > 0) != (status == Status.EMBEDDED)))
            if len(wrong):
                raise ValueError(f"photo {wrong[0]} has the outcome {status[wrong[0]]}, and {counts[wrong[0]]} rows")
        except DAMAGE as err:
            raise self._unusable(err) from err
        return status, counts

    def scanned_paths(self) -> Iterator[bytes]:
        """Yield the exact paths of all photos below `root`, in scan order, reading a block at a time.

        Raises:
            StorageError: the outcomes are damaged.
        """
        try:
            yield from read_scanned_paths(self.hdf5)
        except DAMAGE as err:
            raise self._unusable(err) from err

    def foreign_datasets(self) -> list[str]:
        """Names of datasets of other programs in the file; facemill writes new files without them."""
        return sorted(set(self.hdf5) - OUR_DATASETS)

    def has_column(self, dataset: str) -> bool:
        """Whether a dataset of this name exists and has an entry for each row."""
        return dataset in self.hdf5 and self.hdf5[dataset].shape[:1] == (self.rows,)

    def column(self, dataset: str, start: int, stop: int) -> NDArray[Any]:
        """Entries `start` to `stop` of a dataset of facemill, (stop - start, ...), as they are stored.

        Raises:
            StorageError: the dataset is missing or damaged, or an entry is impossible.
        """
        try:
            entries: NDArray[Any] = check_item(self.hdf5, dataset)[start:stop]
            check_entries(dataset, entries, start)
        except DAMAGE as err:
            raise self._damaged(dataset, err) from err
        return entries

    def _entries(self, dataset: str, rows: Sequence[int] | NDArray[np.int64]) -> list[Any]:
        """Entries of a dataset, in the given order; each compressed chunk is read once."""
        order = np.argsort(rows, kind="stable")
        ascending = np.asarray(rows, np.int64)[order]
        entries: list[Any] = [None] * len(order)
        data = self.hdf5[dataset]
        step = data.chunks[0] if data.chunks else max(1, len(data))
        for chunk in np.unique(ascending // step).tolist():
            first, last = np.searchsorted(ascending, (chunk * step, (chunk + 1) * step)).tolist()
            start, stop = int(ascending[first]), int(ascending[last - 1]) + 1
            block = self.column(dataset, start, stop)
            for position, row in zip(order[first:last].tolist(), ascending[first:last].tolist(), strict=True):
                entries[position] = block[row - start]
        return entries

    def close(self) -> None:
        """Close the file; arrays that were read stay valid."""
        self._hdf5.close()

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
