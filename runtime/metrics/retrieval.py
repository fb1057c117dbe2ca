"""Every photograph as a query for the others of its person: recall@1, R-Precision and MAP@R."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import bootstrap_people

_BLOCK_BYTES = 64 << 20
NAMES = ("recall@1", "R-Precision", "MAP@R")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well queries find their person.

    Attributes:
        values: (Q, 3) float64, of each query: recall@1, R-Precision, MAP@R; see NAMES.
        person: (Q,) int64, whose query it is.
        alone: photographs that are the only one of their person: no queries, but in the way of others.
    """

    values: NDArray[np.float64]
    person: NDArray[np.int64]
    alone: int

    @property
    def means(self) -> NDArray[np.float64]:
        """(3,) float64, over all queries."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    def intervals(self) -> NDArray[np.float64]:
        """(3, 2) float64: of each mean, 95 %, by a bootstrap over people."""
        return bootstrap_people(self.values, self.person)


def retrieve(
    vectors: NDArray[np.float32], person: NDArray[np.int64], lost: NDArray[np.int64] | None = None
) -> Retrieval | None:
    """Search each photograph among all others, exactly.

    With R others of its person: recall@1 is whether the first hit is one; R-Precision the share of them among the first
    R hits; MAP@R the mean over ranks 1 to R of the precision at that rank where the hit is right, and of 0 elsewhere.
    Of tied scores other people's come first, so that a network which answers alike for everybody finds nobody.
    A photograph that could not be embedded finds nothing and is not found.

    Args:
        vectors: (N, D) float32, unit rows.
        person: (N,) int64, equal for photographs of one person; -1 where nobody knows: neither queries nor hits.
        lost: (L,) int64, whose photographs could not be embedded; -1 as above.
    Returns:
        None when nobody has two photographs.
    Source: Musgrave, Belongie and Lim 2020, A metric learning reality check, arXiv:2003.08505, section 3.2.
    """
    known = person >= 0
    vectors, person = vectors[known], person[known]
    lost = np.empty(0, np.int64) if lost is None else lost[lost >= 0]
    everybody = np.concatenate([person, lost])
    if not len(everybody):
        return None
    here, gone = (np.bincount(whose, minlength=everybody.max() + 1) for whose in (person, lost))
    with_others = (here + gone)[everybody] > 1
    if not with_others.any():
        return None
    queries = np.flatnonzero(with_others[: len(person)])  # those that are lost keep their zeros
    values = np.zeros((int(with_others.sum()), len(NAMES)))
    order, ends = np.argsort(person, kind="stable"), here.cumsum()
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        for i, (query, scores) in enumerate(zip(block, vectors[block] @ vectors.T, strict=True), start):
            who = person[query]
            own = order[ends[who] - here[who] : ends[who]]
            mine = scores[own[own != query]]
            scores[own] = -np.inf
            values[i] = _judge(mine, scores, len(mine) + int(gone[who]))
    return Retrieval(values, everybody[with_others], len(everybody) - len(values))


def _judge(mine: NDArray[np.float32], others: NDArray[np.float32], wanted: int) -> tuple[float, float, float]:
    """The three figures of one query.

    Args:
        mine: (r,) scores of its person's other photographs.
        others: (N,) scores of everybody else's; -inf in the places that are not theirs.
        wanted: R >= r, with those that could not be embedded.
    """
    # Ranks beyond R count nothing, so the R best of the others say enough.
    cut = max(0, len(others) - wanted)
    best = np.sort(np.partition(others, cut)[cut:] if cut else others)
    nth = np.arange(1, len(mine) + 1)
    ranks = nth + len(best) - np.searchsorted(best, np.sort(mine)[::-1])  # behind others that score as high or higher
    found = ranks <= wanted
    return float((ranks == 1).any()), float(found.sum() / wanted), float((found * nth / ranks).sum() / wanted)
