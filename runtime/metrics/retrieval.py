"""Compute recall@1, R-Precision and MAP@R with each photo as a query for the others of its person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import bootstrap_people

_BLOCK_BYTES = 64 << 20
NAMES = ("recall@1", "R-Precision", "MAP@R")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Figures of Q queries.

    Attributes:
        values: (Q, 3) float64, recall@1, R-Precision and MAP@R of each query; see NAMES.
        person: (Q,) int64, the person of each query.
        alone: number of photos that are the only one of their person. They are no queries, but may be wrong hits.
    """

    values: NDArray[np.float64]
    person: NDArray[np.int64]
    alone: int

    @property
    def means(self) -> NDArray[np.float64]:
        """Means over all queries, (3,) float64."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    def intervals(self) -> NDArray[np.float64]:
        """Return the 95 % interval of each mean by a bootstrap over people: (3, 2) float64."""
        return bootstrap_people(self.values, self.person)


def retrieve(
    vectors: NDArray[np.float32], person: NDArray[np.int64], lost: NDArray[np.int64] | None = None
) -> Retrieval | None:
    """Search each photo among all others, exactly.

    R is the number of other photos of the query's person. recall@1: whether the first hit is one of them. R-Precision:
    their share among the first R hits. MAP@R: the mean over ranks 1 to R of the precision at that rank if the hit is
    right, else 0.
    Among tied scores other people rank first, so a network that gives one vector for all people scores 0.
    A photo that could not be embedded finds nothing and is not found.

    Args:
        vectors: (N, D) float32, unit rows.
        person: (N,) int64, equal for photos of one person; -1 if unknown: neither query nor hit.
        lost: (L,) int64, the persons of photos that could not be embedded; -1 if unknown.
    Returns:
        None if no person has two photos.
    Source: Musgrave, Belongie and Lim 2020, A metric learning reality check, arXiv:2003.08505, section 3.2.
    """
    labelled = person >= 0
    vectors, person = vectors[labelled], person[labelled]
    lost = np.empty(0, np.int64) if lost is None else lost[lost >= 0]
    everyone = np.concatenate([person, lost])
    if not len(everyone):
        return None
    counts, lost_counts = (np.bincount(labels, minlength=everyone.max() + 1) for labels in (person, lost))
    with_others = (counts + lost_counts)[everyone] > 1
    if not with_others.any():
        return None
    queries = np.flatnonzero(with_others[: len(person)])  # lost photos keep their zeros
    values = np.zeros((int(with_others.sum()), len(NAMES)))
    order, ends = np.argsort(person, kind="stable"), counts.cumsum()
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        for i, (query, scores) in enumerate(zip(block, vectors[block] @ vectors.T, strict=True), start):
            label = person[query]
            own = order[ends[label] - counts[label] : ends[label]]
            genuine = scores[own[own != query]]
            scores[own] = -np.inf
            values[i] = _judge(genuine, scores, len(genuine) + int(lost_counts[label]))
    return Retrieval(values, everyone[with_others], len(everyone) - len(values))


def _judge(genuine: NDArray[np.float32], impostor: NDArray[np.float32], relevant: int) -> tuple[float, float, float]:
    """Return the three figures of one query.

    Args:
        genuine: (r,) scores of its person's other photos.
        impostor: (N,) scores of other people's photos; -inf for its own person's.
        relevant: R >= r; includes photos that could not be embedded.
    """
    # Ranks beyond R do not count, so the R best impostor scores are enough.
    cut = max(0, len(impostor) - relevant)
    best = np.sort(np.partition(impostor, cut)[cut:] if cut else impostor)
    nth = np.arange(1, len(genuine) + 1)
    ranks = nth + len(best) - np.searchsorted(best, np.sort(genuine)[::-1])  # behind impostors of the same score
    hit = ranks <= relevant
    return float((ranks == 1).any()), float(hit.sum() / relevant), float((hit * nth / ranks).sum() / relevant)
