"""Measure the recall and latency of an approximate index against exact search, on rows of the file itself."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..progress import track
from ..storage.file import EmbeddingFile
from .candidates import merge_candidates
from .exact import Candidates, query_chunks, row_scores
from .kinds import efforts
from .rerank import Reranked

MIN_RECALL = 0.99
# The goal of tuning, above MIN_RECALL: the recall on the tuning sample is slightly optimistic.
_TUNING_RECALL = 0.997
_SAMPLE_ROWS = 200
_SAMPLE_SEED = 2
_SPARE_CANDIDATES = 16  # beyond the k best: rows that single precision may confuse with them
_MAX_CANDIDATES_PER_HIT = 64
_CANDIDATES_GROWTH = 1.5
_TIMED_QUERIES = 15
_TIMING_LIMIT_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement of an approximate index against exact search, on rows of the file itself.

    Attributes:
        k: hits that were requested.
        recall: share of the k best other rows that it finds, 0 to 1; a row that ties with the k-th best counts.
        sample: number of rows used as queries.
        effort: lists probed (ivf); 0 if every code is compared (sq8).
        candidates: rows that the codes propose for re-ranking.
        latency_ms: median time of one query, re-ranking included.
    """

    k: int
    recall: float
    sample: int
    effort: int
    candidates: int
    latency_ms: float

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Measured:
        """Read a measurement that `asdict` has written.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or invalid.
        """
        k, sample, effort, candidates = (int(card[name]) for name in ("k", "sample", "effort", "candidates"))
        recall, latency_ms = float(card["recall"]), float(card["latency_ms"])
        if k < 1 or candidates < k or effort < 0 or not 0 <= recall <= 1 or not latency_ms >= 0:
            raise ValueError(f"measured: {dict(card)}")
        return cls(k, recall, sample, effort, candidates, latency_ms)


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """Facts about the index of a search.

    Attributes:
        kind: one of `kinds.KINDS`.
        parameters: build parameters of an approximate index.
        measured: recall and latency of an approximate index; None for exact search.
        exact_ms: median time of one query by exact search; None if it was not measured.
    """

    kind: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    measured: Measured | None = None
    exact_ms: float | None = None

    def as_dict(self) -> dict[str, object]:
        """The facts for JSON."""
        facts: dict[str, object] = {"kind": self.kind, "exact": self.measured is None}
        if self.measured is not None:
            facts |= {"parameters": dict(self.parameters), **asdict(self.measured)}
        return facts if self.exact_ms is None else facts | {"exact_ms": self.exact_ms}

    def __str__(self) -> str:
        measured = self.measured
        if measured is None:
            return "flat (exact)" if self.exact_ms is None else f"flat (exact): {self.exact_ms:.1f} ms"
        how = [f"{self.parameters['dimensions']} dimensions"]
        if self.kind == "ivf":
            how += [f"{self.parameters['lists']:,} lists", f"{measured.effort:,} probed"]
        exact = "" if self.exact_ms is None else f"; exact: {self.exact_ms:.1f} ms"
        return (
            f"{self.kind} ({', '.join(how)}, {measured.candidates:,} re-ranked): recall@{measured.k} "
            f"{measured.recall:.3f} on {measured.sample} sampled rows, {measured.latency_ms:.1f} ms{exact}"
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact answers to a sample of the rows as queries; each row is left out of its own answer.

    Attributes:
        sample: (s,) int64: the rows.
        queries: (s, D) float32: their vectors.
        floors: (s,) float32: the score of the k-th best other row.
        right: for each query, the rows with that score or a higher one; at least k.
        k: hits.
    """

    sample: NDArray[np.int64]
    queries: NDArray[np.float32]
    floors: NDArray[np.float32]
    right: tuple[NDArray[np.int64], ...]
    k: int

    def recall(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
        """Share of the k best rows among k + 1 hits of each query; a row that ties with the k-th counts."""
        good = (scores >= self.floors[:, None]) & (rows >= 0) & (rows != self.sample[:, None])
        return float(np.minimum(good.sum(axis=1), self.k).mean() / self.k)


def find_truth(gallery: EmbeddingFile, index: Reranked, k: int) -> Truth:
    """Search exactly for a seeded sample of the rows, in one pass over the file with one block in memory.

    Args:
        gallery: an open embedding file with at least two rows.
        index: an index with the exact rows of the gallery.
        k: hits; at most N - 1.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    random = np.random.default_rng(_SAMPLE_SEED)
    sample = np.sort(random.choice(gallery.rows, min(_SAMPLE_ROWS, gallery.rows), replace=False))
    queries = index.exact.reconstruct_batch(sample)
    nonzero = queries.any(axis=1)
    if nonzero.any():  # a row of zeros is no useful query: it scores the same with all rows
        sample, queries = sample[nonzero], queries[nonzero]
    count = min(gallery.rows, k + 1 + _SPARE_CANDIDATES)
    best: Candidates = np.empty((len(sample), 0), np.float32), np.empty((len(sample), 0), np.int64)
    start = 0
    for block in track(gallery.blocks(), "exact search, for comparison", gallery.rows):
        scores, rows = faiss.knn(queries, block, min(count, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best = merge_candidates((best, (scores, rows + start)), count)
        start += len(block)
    floors, right = np.empty(len(sample), np.float32), []
    for i, candidate_rows in enumerate(best[1]):
        other_rows = np.sort(candidate_rows[candidate_rows != sample[i]])
        exact = row_scores(index.exact, queries[i], other_rows)
        floors[i] = np.partition(exact, -k)[-k]
        right.append(other_rows[exact >= floors[i]])
    return Truth(sample, queries, floors, tuple(right), k)


def tune(gallery: EmbeddingFile, index: Reranked, parameters: dict[str, int], k: int) -> Measured:
    """Find the fastest setting with enough recall, or else with the best possible recall, and measure it.

    Args:
        gallery: an open embedding file.
        index: the index of its rows.
        parameters: build parameters of the index.
        k: hits for each query.
    """
    truth = find_truth(gallery, index, min(k, gallery.rows - 1))
    counts = _candidate_counts(truth.k + 1, gallery.rows)
    curves = {effort: _recall_curve(index, truth, effort, counts) for effort in efforts(index.kind, parameters)}
    reached = max(curve.max() for curve in curves.values())
    aim = _TUNING_RECALL if reached >= _TUNING_RECALL else min(reached, MIN_RECALL)
    settings = [
        (effort, counts[int(np.argmax(curve >= aim))]) for effort, curve in curves.items() if (curve >= aim).any()
    ]
    times = [median_ms(_search_one(index, truth, *setting), _TIMED_QUERIES) for setting in settings]
    latency_ms, (effort, candidates) = min(zip(times, settings, strict=True))
    recall = truth.recall(*index.search(truth.queries, truth.k + 1, effort, candidates))
    logger.debug("%s: recall %s; settings %s take %s ms", index.kind, curves, settings, times)
    return Measured(k, recall, len(truth.sample), effort, max(k, candidates), latency_ms)


def median_ms(search: Callable[[int], object], runs: int) -> float:
    """Median milliseconds of one call, after a first untimed one; slow calls are timed fewer times.

    Args:
        search: called with the number of the call, from 0.
        runs: maximum number of timed calls.
    """
    search(0)
    times: list[float] = []
    while len(times) < runs and sum(times) < 1000 * _TIMING_LIMIT_S:
        start = time.perf_counter()
        search(len(times))
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _search_one(index: Reranked, truth: Truth, effort: int, candidates: int) -> Callable[[int], object]:
    """Make a function that searches for one query of the sample, by number."""

    def search(number: int) -> object:
        i = number % len(truth.sample)
        return index.search(truth.queries[i : i + 1], truth.k, effort, candidates)

    return search


def _candidate_counts(least: int, rows: int) -> list[int]:
    """Numbers of candidates to try, ascending."""
    most = min(rows, _MAX_CANDIDATES_PER_HIT * least)
    counts = [min(most, least + least // 4 + 1)]
    while counts[-1] < most:
        counts.append(min(most, int(counts[-1] * _CANDIDATES_GROWTH) + 1))
    return counts


def _recall_curve(index: Reranked, truth: Truth, effort: int, counts: list[int]) -> NDArray[np.float64]:
    """(c,) recall for each number of candidates: one search for the most serves all, since candidates are sorted."""
    most, positions = counts[-1], np.array(counts) - 1
    hits = np.zeros(len(counts))
    for chunk in query_chunks(np.arange(len(truth.sample)), most):
        for i, rows in zip(chunk, index.propose(truth.queries[chunk], effort, most), strict=True):
            hits += np.minimum(np.isin(rows, truth.right[i]).cumsum()[positions], truth.k)
    recall: NDArray[np.float64] = hits / (truth.k * len(truth.sample))
    return recall
