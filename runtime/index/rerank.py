"""Rank the rows that codes propose by their exact scores."""

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
from ..regular import open_regular
from .exact import best_rows, query_chunks
from .kinds import search_parameters


class ExactRows:
    """Rows of a flat index file. Owned by `with`; several threads may read at once.

    The file is read, not mapped. A mapped file would count as 64 KiB of resident memory per row, because the kernel
    also maps the neighbours of each page that is read.

    Attributes:
        rows: N.
    """

    def __init__(self, path: Path, rows: int, dimension: int) -> None:
        """Open the file.

        Args:
            path: a flat index file that `indexfile.ensure_index` has checked; it ends with the vectors.
            rows: N.
            dimension: D.
        """
        self.rows = rows
        self._path, self._dimension, self._row_bytes = path, dimension, 4 * dimension
        self._fd = open_regular(path)
        self._start = os.fstat(self._fd).st_size - rows * self._row_bytes
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def reconstruct_batch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read (m,) rows from 0 to N - 1, in their order, as (m, D) float32; named as the method of FAISS.

        Raises:
            StorageError: the file became shorter.
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
    """FAISS's index of codes together with the exact rows. Several threads may search at once.

    Attributes:
        exact: the exact rows.
        kind: one of `kinds.APPROXIMATE`.
    """

    def __init__(self, index: Any, kind: str, exact: ExactRows) -> None:
        self.exact, self.kind = exact, kind
        self._index = index

    def propose(self, queries: NDArray[np.float32], effort: int, candidates: int) -> NDArray[np.int64]:
        """Return (q, candidates) int64 rows by the scores of their codes, best first; -1 fills up missing ones."""
        # FAISS uses one thread for one query anyway: waking the others would only cost time.
        with faiss_threads(1 if len(queries) == 1 else None):
            rows: NDArray[np.int64] = self._index.search(
                queries, candidates, params=search_parameters(self.kind, effort)
            )[1]
        return rows

    def search(
        self, queries: NDArray[np.float32], k: int, effort: int, candidates: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the k best of the candidates of each query, with the scores and the order of `exact.exact_top_k`.

        Args:
            queries: (q, D) float32, C-contiguous.
            k: 1 to N.
            effort: lists to probe (ivf); 0 for sq8.
            candidates: rows that the codes propose, k to N.
        Returns:
            rows (q, k) int64 and scores (q, k) float32; -1 and -inf fill up missing ones.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for chunk in query_chunks(np.arange(len(queries)), candidates):
            for i, proposed in zip(chunk, self.propose(queries[chunk], effort, candidates), strict=True):
                # Each row once, in the order of the file. A damaged index may propose rows that do not exist.
                candidate_rows = np.unique(proposed[(proposed >= 0) & (proposed < self.exact.rows)])
                best, exact = best_rows(self.exact, queries[i], candidate_rows, k)
                rows[i, : len(best)], scores[i, : len(best)] = best, exact
        return rows, scores


@contextmanager
def faiss_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of calls to FAISS inside the block.

    The limit holds for the calling thread only: OpenMP keeps a thread count for each thread that calls it
    (nthreads-var of the specification), so it does not affect searches in other threads.

    Args:
        count: threads, at least 1; None for FAISS's default.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
