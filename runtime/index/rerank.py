"""Codes propose rows, the exact rows decide among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exactrows import ExactRows
from .kinds import set_effort
from .settle import best_of, parts_of
from .threads import faiss_threads


class Reranked:
    """FAISS's index of codes with the exact rows that they stand for.

    Attributes:
        exact: the exact rows.
        kind: one of `sizes.APPROXIMATE`.
    """

    def __init__(self, index: Any, kind: str, exact: ExactRows) -> None:
        self.exact, self.kind = exact, kind
        self._index = index

    def propose(self, queries: NDArray[np.float32], effort: int, candidates: int) -> NDArray[np.int64]:
        """(q, candidates) int64 rows, by the scores of their codes, best first; -1 where no more were found."""
        set_effort(self._index, self.kind, effort)
        with faiss_threads(1 if len(queries) == 1 else None):  # which looks one query up with one thread anyway
            rows: NDArray[np.int64] = self._index.search(queries, candidates)[1]
        return rows

    def search(
        self, queries: NDArray[np.float32], k: int, effort: int, candidates: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best of the candidates of each query, by the exact scores that `settle` computes, in its order.

        Args:
            queries: (q, D) float32, C-contiguous.
            k: 1 to N.
            effort: see `facts.Measured`.
            candidates: k to N.
        Returns:
            rows (q, k) int64 and scores (q, k) float32; -1 and -inf where fewer were proposed.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for part in parts_of(np.arange(len(queries)), candidates):
            for i, mine in zip(part, self.propose(queries[part], effort, candidates), strict=True):
                found = mine[mine >= 0]
                best, exact = best_of(self.exact, queries[i], np.sort(found), k)  # read in the order of the file
                rows[i, : len(best)], scores[i, : len(best)] = best, exact
        return rows, scores
