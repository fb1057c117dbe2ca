"""The one answer, whoever proposed the candidates: exact scores, and a proof that no other row belongs among them.

A source proposes more rows than were asked for; their scores are computed again in double precision, from the exact
rows. Any other row scored at the source at most what the lowest candidate did, so it truly scores at most the source's
error above that. Where the last hit is higher still, the hits are proven; where it is not, more candidates are
asked for, and in the end one pass over the exact rows takes every row that may belong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidates import Source
from .precision import single_error

_BLOCK = 65_536
_PLACES = 1 << 23

logger = logging.getLogger(__name__)


def settle(
    host: Any, source: Source, queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows for each query: higher score first, lower row first among equal scores.

    Args:
        host: FAISS's flat index of the exact rows, FP32, at least one.
        source: who proposes candidates.
        queries: (q, D) float32, C-contiguous, finite, no longer than `MAX_NORM`.
        k: 1 to min(N, source.most).
    Returns:
        rows (q, k) int64 and scores (q, k) float32: inner products in double precision, rounded once.
    """
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    unproven = np.arange(len(queries))
    for count in source.counts(k):
        if not len(unproven):
            break
        count = min(count, host.ntotal)
        left = []
        for part in parts_of(unproven, count):
            found, candidates = source.candidates(queries[part], count)
            for i, theirs, mine in zip(part, found, candidates, strict=True):
                assert mine.min() >= 0, "FAISS found fewer rows than there are"
                rows[i], scores[i] = best_of(host, queries[i], mine, k)
                if count < host.ntotal and float(scores[i, -1]) <= float(theirs.min()) + source.error:
                    left.append(i)
        if left:
            logger.debug("%d of %d queries are too close to call by %d candidates", len(left), len(queries), count)
        unproven = np.array(left, np.int64)
    for i in unproven:
        # All that beat the k-th of the best known so far, or seem to within what FP32 can be wrong by.
        _, _, mine = host.range_search(queries[i : i + 1], float(scores[i, -1]) - single_error(host.d))
        rows[i], scores[i] = best_of(host, queries[i], mine, k)
    return rows, scores


def parts_of(numbers: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """Queries in pieces whose candidates take a bounded amount of memory."""
    step = max(1, _PLACES // count)
    for start in range(0, len(numbers), step):
        yield numbers[start : start + step]


def best_of(
    host: Any, query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of (m,) rows by their exact scores.

    Args:
        host: whoever has the exact rows: FAISS's flat index, or `ExactRows`.
        query: (D,) float32.
        rows: (m,) int64.
        k: at least 1.
    Returns:
        rows (min(k, m),) int64 and scores (min(k, m),) float32: higher score first, lower row first among equal ones.
    """
    exact = row_scores(host, query, rows)
    order = np.lexsort((rows, -exact))[:k]
    return rows[order], exact[order]


def row_scores(host: Any, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m,) float32: `exact_scores` of some rows; equal rows score equally."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = host.reconstruct_batch(rows[start : start + _BLOCK])  # (b, D) float32
        scores[start : start + _BLOCK] = exact_scores(block, query)
    return scores


def exact_scores(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score of each row of (n, D) with its row of (n, D), or with one (D,): (n,) float32.

    Summed in double precision and in one order, and rounded once: it depends on the two vectors and nothing else.
    """
    found: NDArray[np.float32] = np.multiply(left, right, dtype=np.float64).sum(axis=1).astype(np.float32)
    return found
