"""Exact search: the rows with the largest inner product, found by FAISS and settled in double precision.

FAISS multiplies in single precision, and differently for one query and for many. It finds the candidates; their
scores are then computed again, one way for all, so that the answer does not depend on the batch or the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StorageError
from ..extras import require
from .gallery import Gallery
from .indexfile import ensure_index

_BLOCK = 65_536
_BATCH_PLACES = 1 << 22


class FlatIndex:
    """All vectors of a gallery, ready to be searched. Owned by `with`; the index file is mapped, not loaded.

    Attributes:
        rows: N.
        dimension: D.
    """

    def __init__(self, gallery: Gallery) -> None:
        """Open the index beside the gallery; make it when there is none that is right.

        Raises:
            StorageError: the gallery is damaged, or FAISS cannot hold it.
            MissingDependencyError: FAISS is not installed.
        """
        self.rows, self.dimension = gallery.rows, gallery.dimension
        faiss = require("faiss", extra="cpu", purpose="searching")
        self._index: Any = faiss.IndexFlatIP(self.dimension)
        path = ensure_index(gallery) if self.rows else None
        with _faiss_words():
            if path is not None:
                # The flag is of FAISS 1.10; before, the file is loaded.
                self._index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
            else:
                for block in gallery.blocks():
                    self._index.add(block)
        # What single precision can be wrong by in an inner product of unit vectors, for two scores.
        self._slack = 2.02 * self.dimension * 2.0**-24

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best rows for each query: higher score first, lower row first among equal scores.

        Args:
            queries: (q, D) float32, unit rows.
            k: at least 1; more than N gives N.
        Returns:
            rows (q, min(k, N)) int64 and scores (q, min(k, N)) float32.
        Raises:
            ConfigError: queries are not (q, D) finite numbers, or k is below 1.
            StorageError: FAISS failed.
        """
        if k < 1:
            raise ConfigError(f"{k} hits were asked for; wanted: 1 or more")
        if queries.ndim != 2 or queries.shape[1] != self.dimension or not np.isfinite(queries).all():
            raise ConfigError(f"queries are {queries.shape}; wanted: (q, {self.dimension}) finite numbers")
        k = min(k, self.rows)
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        if k:
            step = max(1, _BATCH_PLACES // k)  # bounds the memory of many queries with many hits
            for start in range(0, len(queries), step):
                self._search(queries[start : start + step], rows[start:], scores[start:])
        return rows, scores

    def _search(self, queries: NDArray[np.float32], rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Fill the first places of `rows` and `scores`."""
        k = rows.shape[1]
        with _faiss_words():
            found, candidates = self._index.search(np.ascontiguousarray(queries, np.float32), min(k + 1, self.rows))
        for i, query in enumerate(queries):
            mine = candidates[i]
            if k < self.rows and found[i, k - 1] - found[i, k] <= self._slack:
                mine = self._all_above(query, float(found[i, k - 1]) - self._slack)
            exact = self._exact(query, mine)
            order = np.lexsort((mine, -exact))[:k]
            rows[i], scores[i] = mine[order], exact[order]

    def _all_above(self, query: NDArray[np.float32], bound: float) -> NDArray[np.int64]:
        """Every row that may be among the best when the last place is too close to call."""
        with _faiss_words():
            _, _, rows = self._index.range_search(query[None], bound)
        found: NDArray[np.int64] = rows
        return found

    def _exact(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) float32 inner products, summed in double precision and in one order: equal rows score equally."""
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _BLOCK):
            with _faiss_words():
                block = self._index.reconstruct_batch(rows[start : start + _BLOCK])  # (b, D) float32
            scores[start : start + _BLOCK] = np.multiply(block, query, dtype=np.float64).sum(axis=1)
        return scores

    def __enter__(self) -> FlatIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index = None


@contextmanager
def _faiss_words() -> Iterator[None]:
    """FAISS raises RuntimeError, and MemoryError when a vector cannot be allocated."""
    try:
        yield
    except (RuntimeError, MemoryError) as err:
        raise StorageError(
            f"FAISS failed: {' '.join(str(err).split()) or 'out of memory'}. If memory is short, close other programs; "
            f"otherwise remove the .faiss file beside the embedding file and search again"
        ) from err
