"""A finished embedding file opened for reading: what a search needs of it, a piece at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..records import FACE_DATASETS, FORMAT_VERSIONS, MAX_NORM, FacePlace, Status

_BLOCK_BYTES = 32 << 20
# What h5py raises for a damaged file, depending on where the damage is.
_DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError)


class Gallery:
    """An embedding file. Owned by `with`.

    Attributes:
        path: the file.
        rows: N embeddings.
        dimension: D.
        metadata: attributes of `/metadata`.
        contract: what all rows have in common; see docs/format.md.
        source: run id, size and time of modification: another file has another one.
        has_faces: whether it tells where in its photograph each face is.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            stat = os.stat(path)
            self._file = h5py.File(path, "r")
        except OSError as err:
            reason = f"it is no HDF5 file ({err})"
            if not path.exists():
                reason = "there is no such file"
            elif path.is_dir():
                reason = "it is a folder"
            raise StorageError(
                f"{path} cannot be searched: {reason}; wanted: a finished file of `facemill process`. "
                f"Make one with: python process.py PHOTOS -o {path}"
            ) from err
        try:
            self.metadata: dict[str, Any] = {
                key: value.item() if hasattr(value, "item") else value
                for key, value in self._file["metadata"].attrs.items()
            }
            self._check()
            self.contract: dict[str, Any] = json.loads(self.metadata["contract"])
            self.root = os.fsencode(self.contract["root"])
            self.source = {
                "run_id": str(self.metadata["run_id"]),
                "size_bytes": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
            }
        except _DAMAGE as err:
            self._file.close()
            raise StorageError(
                f"{path} is not a finished embedding file of facemill ({err}); wanted: format version "
                f"{' or '.join(map(str, FORMAT_VERSIONS))} with /embeddings, /image_paths and /metadata. "
                f"Make one with: python process.py PHOTOS -o OTHER.h5"
            ) from err

    def _check(self) -> None:
        """Raise ValueError unless the parts fit together."""
        version = self.metadata.get("format_version")
        if version not in FORMAT_VERSIONS:
            raise ValueError(f"format version {version}")
        vectors = self._file["embeddings"]
        self.has_faces = "face_index" in self._file
        self.rows, self.dimension = map(int, vectors.shape)
        if vectors.dtype.kind != "f" or self.dimension != int(self.metadata["dimension"]):
            raise ValueError(
                f"/embeddings is {vectors.dtype} with {self.dimension} columns, "
                f"the metadata say {self.metadata['dimension']}"
            )
        for name in ("image_paths", *(FACE_DATASETS.values() if self.has_faces else ())):
            if self._file[name].shape[:1] != (self.rows,):
                raise ValueError(f"{self.rows} embeddings, /{name} is {self._file[name].shape}")

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All embeddings in order, (n, D) float32, C-contiguous, 32 MiB at a time.

        Raises:
            StorageError: as `block`.
        """
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for start in range(0, self.rows, step):
            yield self.block(start, min(start + step, self.rows))

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Embeddings of rows `start` to `stop`, (stop - start, D) float32, C-contiguous; a new array.

        Raises:
            StorageError: they are damaged, or a row is not finite or longer than `MAX_NORM`.
        """
        try:
            block = np.ascontiguousarray(self._file["embeddings"][start:stop], np.float32)
        except _DAMAGE as err:
            raise StorageError(
                f"{self.path} is damaged at rows {start} to {stop} of /embeddings ({err}). "
                f"Restore it from a copy, or make it again with --force"
            ) from err
        squares = np.einsum("ij,ij->i", block, block)  # (n,) float32; a sum with a NaN is NaN
        wrong = np.flatnonzero(~(squares <= MAX_NORM**2))
        if len(wrong):
            raise StorageError(
                f"{self.path}: row {start + wrong[0]} of /embeddings has length {np.sqrt(squares[wrong[0]]):.4g}; "
                f"wanted: 1. Restore the file from a copy, or make it again with --force"
            )
        return block

    def names(self, rows: Sequence[int]) -> list[str]:
        """Entries of `/image_paths`, in the order given.

        Raises:
            StorageError: they cannot be read.
        """
        return [name.decode("utf-8", "backslashreplace") for name in self._entries("image_paths", rows)]

    def places(self, rows: Sequence[int]) -> list[FacePlace | None]:
        """Which face of its photograph each row is, in the order given; None where no faces were looked for.

        Raises:
            StorageError: they cannot be read.
        """
        if not self.has_faces:
            return [None] * len(rows)
        ranks, boxes = (self._entries(FACE_DATASETS[name], rows) for name in ("face_index", "box"))
        return [FacePlace(int(rank), tuple(box.tolist())) for rank, box in zip(ranks, boxes, strict=True)]

    def has(self, dataset: str) -> bool:
        """Whether there is such a dataset with an entry for each embedding."""
        return dataset in self._file and self._file[dataset].shape[:1] == (self.rows,)

    def aligned(self, dataset: str, start: int, stop: int) -> NDArray[Any]:
        """Entries `start` to `stop` of a dataset aligned with `/embeddings`, (stop - start, ...), as they are stored.

        Raises:
            StorageError: they cannot be read.
        """
        try:
            found: NDArray[Any] = self._file[dataset][start:stop]
        except _DAMAGE as err:
            raise StorageError(f"{self.path} is damaged in /{dataset} ({err}). Restore it from a copy") from err
        return found

    def _entries(self, dataset: str, rows: Sequence[int]) -> list[Any]:
        """Entries of a dataset, in the order given; each compressed chunk is opened once."""
        order = np.argsort(rows, kind="stable")
        ascending = np.asarray(rows, np.int64)[order]
        found: list[Any] = [None] * len(order)
        try:
            data = self._file[dataset]
            step = data.chunks[0] if data.chunks else max(1, len(data))
            for chunk in np.unique(ascending // step).tolist():
                first, last = np.searchsorted(ascending, (chunk * step, (chunk + 1) * step)).tolist()
                start, stop = int(ascending[first]), int(ascending[last - 1]) + 1
                block = data[start:stop]
                for place, row in zip(order[first:last].tolist(), ascending[first:last].tolist(), strict=True):
                    found[place] = block[row - start]
        except _DAMAGE as err:
            raise StorageError(f"{self.path} is damaged in /{dataset} ({err}). Restore it from a copy") from err
        return found

    def photographs(self) -> NDArray[np.int64]:
        """(N,) int64: which photograph each row is of, by its row in `/outcomes`; several faces of one share it.

        Raises:
            StorageError: they cannot be read.
        """
        try:
            if "outcomes/embeddings" not in self._file:  # one row a photograph
                return np.arange(self.rows)
            counts = self._file["outcomes/embeddings"][:]
        except _DAMAGE as err:
            raise StorageError(f"{self.path} is damaged in /outcomes ({err}). Restore it from a copy") from err
        return np.repeat(np.arange(len(counts)), counts)

    def photograph(self, row: int) -> bytes:
        """The absolute path of the photograph of a row, to the byte, wherever the file itself may lie."""
        return self.photograph_paths([row])[0]

    def photograph_paths(self, rows: Sequence[int]) -> list[bytes]:
        """`photograph` of several rows, in the order given.

        Raises:
            StorageError: they cannot be read.
        """
        names = zip(rows, self._entries("image_paths", rows), strict=True)
        return [os.path.join(self.root, self.raw_paths.get(row, bytes(name))) for row, name in names]

    @cached_property
    def raw_paths(self) -> dict[int, bytes]:
        """The few paths that are not UTF-8, by row of `/embeddings`; a photograph with several faces has several."""
        outcomes = self._file.get("outcomes")
        if outcomes is None or "raw_paths" not in outcomes:
            return {}
        counts = outcomes["embeddings"][:] if "embeddings" in outcomes else outcomes["status"][:] == Status.EMBEDDED
        scan_rows = outcomes["raw_paths/row"][:]
        stops = np.cumsum(counts, dtype=np.int64)[scan_rows]
        starts = stops - counts[scan_rows]
        return {
            row: exact.tobytes()
            for start, stop, exact in zip(starts, stops, outcomes["raw_paths/bytes"][:], strict=True)
            for row in range(start, stop)
        }

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
