"""Codes propose rows, the exact rows decide among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..extras import require
from .exact import best_rows, query_chunks
from .kinds import search_parameters


class ExactRows:
    """Rows of a flat index file. Owned by `with`; several threads may read at once.

    The file is read and not mapped: a mapped file would count as resident 64 KiB a row, since the kernel also maps the
    neighbours of each page that is read.
    """

    def __init__(self, path: Path, rows: int, dimension: int) -> None:
        """Open the file.

        Args:
            path: a flat index file that `indexfile.ensure_index` has checked: its vectors are its end.
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
        vectors = np.empty((len(rows), self._dimension), np.float32)
        offsets = (self._start + rows * self._row_bytes).tolist()
        for vector, offset in zip(vectors, offsets, strict=True):
            if os.preadv(self._fd, [vector.data], offset) != self._row_bytes:
                raise StorageError(f"{self._path} became shorter while it was read. Search again: it is rebuilt")
        return vectors

    def __enter__(self) -> ExactRows:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


class Reranked:
    """FAISS's index of codes with the exact rows that they stand for. Several threads may search at once.

    Attributes:
        exact: the exact rows.
        kind: one of `kinds.APPROXIMATE`.
    """

    def __init__(self, index: Any, kind: str, exact: ExactRows) -> None:
        self.exact, self.kind = exact, kind
        self._index = index

    def propose(self, queries: NDArray[np.float32], effort: int, candidates: int) -> NDArray[np.int64]:
        """(q, candidates) int64 rows, by the scores of their codes, best first; -1 where fewer were found."""
        # FAISS looks one query up with one thread anyway: waking the others would only cost time.
        with faiss_threads(1 if len(queries) == 1 else None):
            rows: NDArray[np.int64] = self._index.search(
                queries, candidates, params=search_parameters(self.kind, effort)
            )[1]
        return rows

    def search(
        self, queries: NDArray[np.float32], k: int, effort: int, candidates: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best of the candidates of each query, by the scores and in the order of `exact.exact_top_k`.

        Args:
            queries: (q, D) float32, C-contiguous.
            k: 1 to N.
            effort: see `measure.Measured`.
            candidates: k to N.
        Returns:
            rows (q, k) int64 and scores (q, k) float32; -1 and -inf where fewer were proposed.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for chunk in query_chunks(np.arange(len(queries)), candidates):
            for i, proposed in zip(chunk, self.propose(queries[chunk], effort, candidates), strict=True):
                candidate_rows = np.sort(proposed[proposed >= 0])  # read in the order of the file
                best, exact = best_rows(self.exact, queries[i], candidate_rows, k)
                rows[i, : len(best)], scores[i, : len(best)] = best, exact
        return rows, scores


@contextmanager
def faiss_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of calls to FAISS inside the block; None for FAISS's default.

    The limit holds for the calling thread alone: OpenMP keeps the number of threads for each thread that calls it
    (nthreads-var of the specification), so a search in another thread is not affected.

    Args:
        count: threads, at least 1.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
