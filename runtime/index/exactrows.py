"""The exact rows by their numbers, read from the flat index file and not mapped.

A mapped file would be counted as resident 64 KiB a row: the kernel maps the neighbours of a page that it is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError


class ExactRows:
    """Rows of a flat index file. Owned by `with`; several threads may read at once."""

    def __init__(self, path: Path, rows: int, dimension: int) -> None:
        """Open the file.

        Args:
            path: a flat index file that `indexfile.ensure_index` has found right: its vectors are its end.
            rows: N.
            dimension: D.
        """
        self._path, self._dimension, self._row_bytes = path, dimension, 4 * dimension
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._start = os.fstat(self._fd).st_size - rows * self._row_bytes
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def reconstruct_batch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m, D) float32 of (m,) rows from 0 to N - 1, in their order; called as FAISS calls it.

        Raises:
            StorageError: the file has become shorter.
        """
        found = np.empty((len(rows), self._dimension), np.float32)
        offsets = (self._start + rows * self._row_bytes).tolist()
        for place, offset in zip(found, offsets, strict=True):
            if os.preadv(self._fd, [place.data], offset) != self._row_bytes:
                raise StorageError(f"{self._path} has become shorter while it was read. Search again: it is made anew")
        return found

    def __enter__(self) -> ExactRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
