"""Re-score candidates exactly and prove that the top k is complete.

A source proposes more than k rows. Their scores are computed again in double precision from the exact rows. The source
scored every other row at most as high as the lowest candidate, so its true score exceeds that by at most the source's
error bound. If the k-th hit scores higher still, the hits are proven. If not, more candidates are requested. As a last
resort, one pass over the exact rows takes every row that may be a hit.

The error bounds are rigorous, not estimates. They hold for vectors no longer than MAX_NORM, which the reader of an
embedding file enforces for rows and `check_queries` for queries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..records import MAX_NORM

Candidates = tuple[NDArray[np.float32], NDArray[np.int64]]

_SCORED_ROWS = 65_536  # rows that are read and scored at once
_HELD_CANDIDATES = 1 << 23  # candidates of all queries of a chunk

_FP32_ROUNDOFF = 2.0**-24  # to nearest
_FP16_ROUNDOFF = 2.0**-11  # to nearest
_FP16_SUBNORMAL_ERROR = 2.0**-25  # half a step of FP16 below its normal range
_EXTRA_ROUNDINGS = 3  # besides the sum: the exact score and a bound, both rounded to FP32, and one as a margin
_SECOND_ORDER = 1.01  # covers the terms that the first-order bound leaves out

logger = logging.getLogger(__name__)


class CandidateSource(Protocol):
    """Proposes rows, with scores that may be slightly wrong.

    Attributes:
        error: an upper bound of the error of a score; see `fp32_error_bound` and `fp16_error_bound`.
        max_hits: largest k for which it proposes enough candidates.
    """

    error: float
    max_hits: int

    def counts(self, k: int) -> Iterator[int]:
        """Numbers of candidates to request for k hits, ascending: each next one is for queries still unproven."""
        ...

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Propose the `count` rows that score highest at this source, for each query.

        Args:
            queries: (q, D) float32.
            count: at most N.
        Returns:
            scores (q, count) float32 and rows (q, count) int64, in no particular order.
        """
        ...


class Selected:
    """Rows to which a search is limited.

    Attributes:
        rows: their number.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        """Take (N,) bool, the rows to search."""
        self.rows = int(mask.sum())
        self._bits = np.packbits(mask, bitorder="little")

    def parameters(self) -> Any:
        """FAISS's parameters for a search of these rows."""
        faiss = require("faiss", extra="cpu", purpose="searching")
        return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(self._bits))


def exact_top_k(
    host: Any, source: CandidateSource, queries: NDArray[np.float32], k: int, selected: Selected | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k best rows for each query: higher score first, lower row first among equal scores.

    Args:
        host: FAISS's flat index of the exact rows, FP32, at least one.
        source: proposes candidates.
        queries: (q, D) float32, C-contiguous, finite, no longer than `MAX_NORM`.
        k: 1 to min(N, source.max_hits).
        selected: the rows to which the source is limited; None for all.
    Returns:
        rows (q, k) int64 and scores (q, k) float32: inner products in double precision, rounded once.
    """
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    unproven = np.arange(len(queries))
    total, limited = (host.ntotal, {}) if selected is None else (selected.rows, {"params": selected.parameters()})
    for count in source.counts(k):
        if not len(unproven):
            break
        count = min(count, total)
        remaining = []
        for chunk in query_chunks(unproven, count):
            source_scores, candidates = source.candidates(queries[chunk], count)
            for i, row_source_scores, candidate_rows in zip(chunk, source_scores, candidates, strict=True):
                assert candidate_rows.min() >= 0, "FAISS returned fewer rows than exist"
                rows[i], scores[i] = best_rows(host, queries[i], candidate_rows, k)
                if count < total and float(scores[i, -1]) <= float(row_source_scores.min()) + source.error:
                    remaining.append(i)
        if remaining:
            logger.debug("%d of %d queries are not proven by %d candidates", len(remaining), len(queries), count)
        unproven = np.array(remaining, np.int64)
    for i in unproven:
        # All rows whose FP32 score may exceed that of the k-th hit so far.
        least = float(scores[i, -1]) - fp32_error_bound(host.d)
        _, _, candidate_rows = host.range_search(queries[i : i + 1], least, **limited)
        rows[i], scores[i] = best_rows(host, queries[i], candidate_rows, k)
    return rows, scores


def query_chunks(numbers: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """Split queries into chunks whose candidates, `count` each, need bounded memory."""
    step = max(1, _HELD_CANDIDATES // count)
    for start in range(0, len(numbers), step):
        yield numbers[start : start + step]


def best_rows(
    host: Any, query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Select the k best of (m,) rows by their exact scores.

    Args:
        host: has the exact rows: FAISS's flat index, or `rerank.ExactRows`.
        query: (D,) float32.
        rows: (m,) int64.
        k: at least 1.
    Returns:
        rows (min(k, m),) int64 and scores (min(k, m),) float32: higher score first, lower row first among equal scores.
    """
    exact = row_scores(host, query, rows)
    order = np.lexsort((rows, -exact))[:k]
    return rows[order], exact[order]


def row_scores(host: Any, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m,) float32: `exact_scores` of (m,) rows with one query; equal rows score equally."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _SCORED_ROWS):
        block = host.reconstruct_batch(rows[start : start + _SCORED_ROWS])  # (b, D) float32
        scores[start : start + _SCORED_ROWS] = exact_scores(block, query)
    return scores


def exact_scores(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score of each row of (n, D) with its row of (n, D), or with a single (D,): (n,) float32.

    Each is summed in double precision, in a fixed order, and rounded once: it depends on the two vectors only.
    """
    scores: NDArray[np.float32] = np.multiply(left, right, dtype=np.float64).sum(axis=1).astype(np.float32)
    return scores


def fp32_error_bound(dimension: int) -> float:
    """The largest error of an inner product summed in FP32, in any order, with or without FMA.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), 3.1: |fl(x'y) - x'y| <= gamma_n |x|'|y|,
    and |x|'|y| <= length of x times length of y (Cauchy-Schwarz).
    """
    return _SECOND_ORDER * MAX_NORM**2 * (dimension + _EXTRA_ROUNDINGS) * _FP32_ROUNDOFF


def fp16_error_bound(dimension: int) -> float:
    """The largest error of an inner product whose row and query are rounded to FP16, summed in FP32.

    Rounding moves a vector x by at most r = u |x| + sqrt(n) t: u for its normal numbers, t for the tiny ones. Then
    |q'x - Q'X| <= |q - Q| |X| + |q| |x - X| <= r (|x| + r) + |q| r, about 2**-10 for unit vectors. Products of two
    FP16 numbers are exact in FP32. Tensor cores truncate when they add; four roundings for each addition cover that.
    Source: Higham (2002), 2.1 and 3.1; Fasi et al., Numerical behavior of NVIDIA tensor cores (2021), for the sums.
    """
    rounding = _FP16_ROUNDOFF * MAX_NORM + math.sqrt(dimension) * _FP16_SUBNORMAL_ERROR
    products = rounding * (MAX_NORM + rounding) + MAX_NORM * rounding
    sums = 4 * (dimension + _EXTRA_ROUNDINGS) * _FP32_ROUNDOFF * (MAX_NORM + rounding) ** 2
    return _SECOND_ORDER * (products + sums)
