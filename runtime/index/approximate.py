"""Approximate search: codes propose rows, exact scores rank them, and the recall is measured beforehand."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StorageError
from ..storage.file import EmbeddingFile
from .codesfile import ensure_codes
from .flat import FlatIndex, check_queries, exact_latency, translate_faiss_errors
from .indexfile import ensure_index
from .kinds import MIN_ROWS
from .measure import IndexFacts
from .rerank import ExactRows, Reranked


class ApproximateIndex:
    """An approximate index, ready to be searched. Owned by `with`; several threads may search at once.

    Attributes:
        rows: N.
        dimension: D.
        facts: its parameters, recall and latency.
    """

    def __init__(self, gallery: EmbeddingFile, kind: str, k: int) -> None:
        """Open the index beside the gallery. Build it if no valid one exists; measure it if it was not for k hits.

        Args:
            gallery: an open embedding file.
            kind: one of `kinds.APPROXIMATE`.
            k: hits that searches will request.
        Raises:
            ConfigError: the gallery has too few rows.
            StorageError: the gallery is damaged, FAISS fails, or the index cannot be saved beside the gallery.
            MissingDependencyError: FAISS is not installed.
        """
        self.rows, self.dimension = gallery.rows, gallery.dimension
        if self.rows < MIN_ROWS:
            raise ConfigError(
                f"{gallery.path} has {self.rows} rows; expected for an index of kind {kind}: at least {MIN_ROWS}, "
                f"since it is trained on them. Search with: --index flat, which is exact"
            )
        self._gallery = gallery
        self._k = min(k, self.rows)
        with ExitStack() as stack, translate_faiss_errors():
            path = ensure_index(gallery)
            if path is None:
                raise StorageError(
                    f"the exact rows cannot be saved beside {gallery.path}; expected for an index of kind {kind}: a "
                    f"writable folder. Free disk space, or search with: --index flat"
                )
            exact = stack.enter_context(ExactRows(path, self.rows, self.dimension))
            index, parameters, measured = ensure_codes(gallery, kind, self._k, exact)
            self._index = Reranked(index, kind, exact)
            self._measured = measured
            self.facts = IndexFacts(kind, parameters, measured, exact_latency(gallery))
            self._owned = stack.pop_all()

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best rows for each query: higher score first, lower row first among equal scores.

        Args:
            queries: (q, D) float32, unit rows.
            k: at least 1; more than N gives N. More than the index was opened for is answered by exact search.
        Returns:
            rows (q, min(k, N)) int64 and scores (q, min(k, N)) float32: the scores are exact.
        Raises:
            ConfigError: queries are not (q, D) finite unit vectors, or k is below 1.
            StorageError: FAISS failed.
        """
        check_queries(queries, k, self.dimension)
        k = min(k, self.rows)
        queries = np.ascontiguousarray(queries, np.float32)
        if k > self._k:  # the recall for so many hits was not measured
            with FlatIndex(self._gallery) as flat:
                return flat.search(queries, k)
        with translate_faiss_errors():
            rows, scores = self._index.search(queries, k, self._measured.effort, self._measured.candidates)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):  # the probed lists hold fewer than k rows
            with FlatIndex(self._gallery) as flat:
                rows[short], scores[short] = flat.search(queries[short], k)
        return rows, scores

    def __enter__(self) -> ApproximateIndex:
        return self

    def __exit__(self, *exc: object) -> None:
        self._owned.close()
        del self._index
