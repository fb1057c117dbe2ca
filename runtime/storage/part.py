"""Finished files that a new one is made from, and what of each goes into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..records import FACE_DATASETS, FORMAT_VERSIONS
from .salvage import check_sizes
from .segment_reader import DAMAGE, read_vector_counts, refuse_system_error

_BLOCK_ROWS = 65_536
OURS = frozenset({"metadata", "outcomes", "embeddings", "image_paths", "faces", *FACE_DATASETS.values()})


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


class FinishedFile:
    """A finished embedding file, open for reading. Owned by `with`.

    Attributes:
        path: the file; a link is followed.
        file: the open h5py file.
        metadata: attributes of `/metadata`.
        contract: what all of its rows have in common.
        root: absolute folder of its paths.
        dtype: of `/embeddings`.
        status: (M,) uint8.
        vector_counts: (M,) uint16.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = Path(os.path.realpath(path))
        if not self.path.is_file():
            raise StorageError(f"there is no file {path}; wanted: a finished file of `facemill process`")
        try:
            self.file = h5py.File(self.path, "r")
        except DAMAGE as err:
            raise self._unusable(err) from err
        try:
            check_sizes(self.file)
            self.metadata = attributes_of(self.file)
            if self.metadata.get("format_version") not in FORMAT_VERSIONS:
                raise ValueError(f"its format version is {self.metadata.get('format_version')}")
            self.contract: dict[str, Any] = json.loads(self.metadata["contract"])
            self.root = os.fsencode(self.contract["root"])
            self.dtype = str(self.file["embeddings"].dtype)
            self.status: NDArray[np.uint8] = self.file["outcomes/status"][:]
            self.vector_counts = read_vector_counts(self.file["outcomes"], self.status)
            self._fits()
        except DAMAGE as err:
            self.file.close()
            raise self._unusable(err) from err

    def _fits(self) -> None:
        """Raise ValueError unless the parts have the lengths that they say."""
        for name, wanted in (("outcomes/path", len(self.status)), ("embeddings", int(self.vector_counts.sum()))):
            if len(self.file[name]) != wanted:
                raise ValueError(f"/{name} has {len(self.file[name])} rows; wanted: {wanted}")
        if not self.status.all():
            raise ValueError(f"the outcome of row {int(self.status.argmin())} is missing")

    def _unusable(self, err: Exception) -> StorageError:
        refuse_system_error(err, self.path)
        return StorageError(
            f"{self.path} is no embedding file of facemill, or damaged ({err}); wanted: format version "
            f"{' or '.join(map(str, FORMAT_VERSIONS))}. If it was one, save what is whole with: facemill repair "
            f"{self.path}"
        )

    def paths(self) -> Iterator[bytes]:
        """The exact paths of all photographs, in scan order, some at a time.

        Raises:
            StorageError: they cannot be read.
        """
        try:
            yield from exact_paths(self.file)
        except DAMAGE as err:
            raise self._unusable(err) from err

    def extras(self) -> list[str]:
        """Names of datasets that others have put into the file: a new one is made without them."""
        return sorted(set(self.file) - OURS)

    def part(self, keep: NDArray[np.bool_] | None = None, prefix: bytes = b"") -> Part:
        """All of it, or the photographs chosen.

        Args:
            keep: (M,) bool; None for all.
            prefix: see Part.
        """
        counts, outcomes = self.vector_counts, self.file["outcomes"]
        return Part(
            self.path,
            self.file,
            self.paths,
            self.status,
            np.arange(len(self.status)),
            np.where(counts > 0, np.cumsum(counts, dtype=np.int64) - counts, -1),
            counts,
            "digest" in outcomes,
            "faces" in outcomes,
            np.ones(len(self.status), bool) if keep is None else keep,
            prefix,
        )

    def __enter__(self) -> FinishedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def attributes_of(file: Any) -> dict[str, Any]:
    """The attributes of `/metadata` of an open finished file, NumPy's numbers as Python's."""
    found = file["metadata"].attrs.items()
    # A name that is damaged comes as bytes: it is nobody's.
    return {key: value.item() if hasattr(value, "item") else value for key, value in found if isinstance(key, str)}


def exact_paths(file: Any) -> Iterator[bytes]:
    """The exact scanned paths of an open finished file, in scan order, read some at a time."""
    group = file["outcomes"]
    raw: dict[int, bytes] = {}
    if "raw_paths" in group:
        exact = zip(group["raw_paths/row"][:], group["raw_paths/bytes"][:], strict=True)
        raw = {int(row): path.tobytes() for row, path in exact}
    for start in range(0, len(group["path"]), _BLOCK_ROWS):
        block = group["path"][start : start + _BLOCK_ROWS].tolist()
        if not all(block):
            raise ValueError(f"the path of row {start + block.index(b'')} is missing")
        yield from (raw.get(row, path) for row, path in enumerate(block, start)) if raw else block


def stored_text(path: bytes) -> bytes:
    """A path as the UTF-8 that is stored; bytes that are not UTF-8 become \\xNN."""
    return path if path.isascii() else path.decode("utf-8", "backslashreplace").encode()
