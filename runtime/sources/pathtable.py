"""The paths of a scan on disk: millions of them, memory-mapped, so that they take no memory of the process."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from ..files import durable_file
from ..regular import open_regular


def write_paths(path: Path, paths: Iterable[bytes]) -> str:
    """Write paths durably, each followed by a NUL byte, which no path contains.

    Returns:
        The digest of the list; see `paths_digest`.
    Raises:
        DiskFullError, StorageError: they cannot be written.
    """
    digest = hashlib.sha256()
    with durable_file(path, "the list of photos", like=path.parent) as file:  # as private as the run folder
        for block in _blocks(paths):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def paths_digest(paths: Iterable[bytes]) -> str:
    """The SHA-256 of paths as `write_paths` writes them, in hexadecimal digits."""
    digest = hashlib.sha256()
    for block in _blocks(paths):
        digest.update(block)
    return digest.hexdigest()


def _blocks(paths: Iterable[bytes]) -> Iterator[bytes]:
    block: list[bytes] = []
    for name in paths:
        block.append(name)
        if len(block) == 65_536:
            yield b"\0".join(block) + b"\0"
            block.clear()
    if block:
        yield b"\0".join(block) + b"\0"


class PathTable(Sequence[bytes]):
    """The paths of `write_paths`, by row. Use it as a context manager. Several threads may read at once.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(open_regular(path), "rb")  # noqa: SIM115
        size = os.fstat(self._file.fileno()).st_size
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        ends: list[np.ndarray] = [np.zeros(1, np.int64)]
        for start in range(0, size, 1 << 24):
            assert self._map is not None
            block = np.frombuffer(self._map[start : start + (1 << 24)], np.uint8)
            ends.append(np.flatnonzero(block == 0) + (start + 1))
        self._offsets = np.concatenate(ends).astype(np.int64)  # (rows + 1,)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...

    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        assert self._map is not None
        return self._map[self._offsets[row] : self._offsets[row + 1] - 1]

    def __enter__(self) -> PathTable:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._map is not None:
            self._map.close()
        self._file.close()
