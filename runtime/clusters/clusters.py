"""Clusters of rows, numbered so that the numbers say something: 1 is the largest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_LARGE_SHARE, _LARGE, _LARGE_AT_LEAST = 0.05, 1000, 50  # who has more photographs than that is no single person, mostly


@dataclass(frozen=True)
class Clusters:
    """N rows in C clusters. Cluster 1 is the largest; among equals the one whose first row comes first.

    Attributes:
        of: (N,) int32, the number of each row's cluster, 1 to C; 0 for a row that is in none.
        scores: (N,) float32, how like the others of its cluster a row is.
        method: "whispers" or "k-means".
        threshold: of the links; None for k-means.
        k: centres; None for whispers.
        seed: of what was drawn.
    """

    of: NDArray[np.int32]
    scores: NDArray[np.float32]
    method: str
    threshold: float | None
    k: int | None
    seed: int

    @property
    def count(self) -> int:
        """C."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(C,) int64, descending: rows of cluster 1, 2 ..."""
        return np.bincount(self.of, minlength=1)[1:]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) int64: all rows by cluster, those of a cluster ascending; the rows of none come first."""
        return np.argsort(self.of, kind="stable")

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """(C + 1,) int64: where each cluster begins in `order`, and where the last ends."""
        return len(self.of) - int(self.sizes.sum()) + np.concatenate([[0], np.cumsum(self.sizes)])

    def rows(self, cluster: int) -> NDArray[np.int64]:
        """The rows of a cluster, ascending."""
        return self.order[self._bounds[cluster - 1] : self._bounds[cluster]]

    def with_at_least(self, least: int) -> int:
        """How many clusters have so many rows; they are clusters 1 to that number."""
        return int((self.sizes >= least).sum())

    @property
    def suspicious(self) -> int:
        """How many clusters are too large to be a person."""
        return self.with_at_least(min(_LARGE, max(_LARGE_AT_LEAST, round(_LARGE_SHARE * len(self.of)))) + 1)


def number(
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    method: str,
    threshold: float | None = None,
    k: int | None = None,
    seed: int = 0,
) -> Clusters:
    """Number clusters by size.

    Args:
        labels: (N,) int64, equal for rows of one cluster; -1 for rows of none.
        scores, method, threshold, k, seed: as in Clusters.
    """
    inside = labels >= 0
    _, first, dense, sizes = np.unique(labels[inside], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(1, len(sizes) + 1)
    of = np.zeros(len(labels), np.int32)
    of[inside] = rank[dense.reshape(-1)]
    return Clusters(of, scores, method, threshold, k, seed)
