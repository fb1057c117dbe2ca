"""Agreement of clusters with known people: precision and recall over all pairs of photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of photos, counted.

    Attributes:
        right: in one cluster, and of one person.
        together: in one cluster.
        same: of one person.
    """

    right: int
    together: int
    same: int

    @property
    def precision(self) -> float:
        """Share of the pairs in one cluster that show one person; 1 without such pairs."""
        return self.right / self.together if self.together else 1.0

    @property
    def recall(self) -> float:
        """Share of the pairs of one person that are in one cluster; 1 without such pairs."""
        return self.right / self.same if self.same else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        pairs = self.together + self.same
        return 2 * self.right / pairs if pairs else 1.0


def agreement(cluster: NDArray[np.int64], person: NDArray[np.int64]) -> Agreement:
    """Compare clusters with people, in time and memory that grow with the photos and not with their pairs.

    Args:
        cluster: (N,) int64, equal for photos of one cluster.
        person: (N,) int64, equal for photos of one person; -1 for photos of unknown people, which form no pair.
    Source: the pairwise F-measure; Amigo et al. (2009), Information Retrieval 12, "counting pairs".
    """
    labelled = person >= 0
    cluster, person = _dense(cluster[labelled]), _dense(person[labelled])
    group = cluster * (int(person.max(initial=0)) + 1) + person  # (n,) a number for each cluster and person
    return Agreement(_pairs(_dense(group)), _pairs(cluster), _pairs(person))


def _dense(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups from 0 without gaps."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _pairs(labels: NDArray[np.int64]) -> int:
    """Count the pairs within groups."""
    sizes = np.bincount(labels)
    return int((sizes * (sizes - 1) // 2).sum())
