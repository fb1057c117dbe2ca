"""How hard an approximate index has to look: measured against exact search, on rows of the file itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..progress import track
from ..storage.file import EmbeddingFile
from .candidates import Candidates, merge
from .facts import Measured
from .kinds import efforts
from .pace import median_ms
from .rerank import Reranked
from .settle import parts_of, row_scores

WANTED = 0.99
# What the tuning aims at: the sample that it chooses by flatters it a little.
_AIM = 0.997
_SAMPLE = 200
_SEED = 2
_SPARE = 16  # rows beyond the k best that single precision may have confused with them
_MOST_TIMES, _STEP = 64, 1.5  # candidates: up to so many times k, each time so many times more
_TIMED = 15  # queries

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Truth:
    """What exact search says of some rows of the file, each left out of its own answer.

    Attributes:
        asked: (s,) int64: the rows.
        queries: (s, D) float32: their vectors.
        floors: (s,) float32: the score of the k-th best other row.
        right: for each, the rows that score as much or more; at least k.
        k: hits.
    """

    asked: NDArray[np.int64]
    queries: NDArray[np.float32]
    floors: NDArray[np.float32]
    right: tuple[NDArray[np.int64], ...]
    k: int

    def recall(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
        """Share of the k best that were found, given k + 1 hits of each query; one that scores as the k-th counts."""
        good = (scores >= self.floors[:, None]) & (rows >= 0) & (rows != self.asked[:, None])
        return float(np.minimum(good.sum(axis=1), self.k).mean() / self.k)


def find_truth(gallery: EmbeddingFile, index: Reranked, k: int) -> Truth:
    """Search exactly for a seeded sample of the rows, in one pass over the file and the memory of a block.

    Args:
        gallery: an open embedding file with at least two rows.
        index: whose exact rows are those of the gallery.
        k: hits; at most N - 1.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    asked = np.sort(np.random.default_rng(_SEED).choice(gallery.rows, min(_SAMPLE, gallery.rows), replace=False))
    queries = index.exact.reconstruct_batch(asked)
    if (some := queries.any(axis=1)).any():  # nobody looks for a row of zeros, which all rows are as like
        asked, queries = asked[some], queries[some]
    count = min(gallery.rows, k + 1 + _SPARE)
    best: Candidates = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    start = 0
    for block in track(gallery.blocks(), "exact search, to compare", gallery.rows):
        scores, rows = faiss.knn(queries, block, min(count, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best = merge((best, (scores, rows + start)), count)
        start += len(block)
    floors, right = np.empty(len(asked), np.float32), []
    for i, found in enumerate(best[1]):
        others = np.sort(found[found != asked[i]])
        exact = row_scores(index.exact, queries[i], others)
        floors[i] = np.partition(exact, -k)[-k]
        right.append(others[exact >= floors[i]])
    return Truth(asked, queries, floors, tuple(right), k)


def tune(gallery: EmbeddingFile, index: Reranked, parameters: dict[str, int], k: int) -> Measured:
    """Find the quickest search that reaches the recall, or else the best there is, and measure it.

    Args:
        gallery: an open embedding file.
        index: of its rows.
        parameters: of the index.
        k: hits for each query.
    """
    truth = find_truth(gallery, index, min(k, gallery.rows - 1))
    counts = _counts(truth.k + 1, gallery.rows)
    curves = {effort: _curve(index, truth, effort, counts) for effort in efforts(index.kind, parameters, counts[-1])}
    reached = max(curve.max() for curve in curves.values())
    aim = _AIM if reached >= _AIM else min(reached, WANTED)
    options = [
        (effort, counts[int(np.argmax(curve >= aim))]) for effort, curve in curves.items() if (curve >= aim).any()
    ]
    times = [median_ms(_one(index, truth, *option), _TIMED) for option in options]
    latency_ms, (effort, candidates) = min(zip(times, options, strict=True))
    recall = truth.recall(*index.search(truth.queries, truth.k + 1, effort, candidates))
    logger.debug("%s: recall %s; options %s take %s ms", index.kind, curves, options, times)
    return Measured(k, recall, len(truth.asked), effort, max(k, candidates), latency_ms)


def _one(index: Reranked, truth: Truth, effort: int, candidates: int) -> Callable[[int], object]:
    """One query of the sample, by its number."""

    def search(number: int) -> object:
        at = number % len(truth.asked)
        return index.search(truth.queries[at : at + 1], truth.k, effort, candidates)

    return search


def _counts(least: int, rows: int) -> list[int]:
    """Numbers of candidates that are tried, ascending."""
    most = min(rows, _MOST_TIMES * least)
    found = [min(most, least + least // 4 + 1)]
    while found[-1] < most:
        found.append(min(most, int(found[-1] * _STEP) + 1))
    return found


def _curve(index: Reranked, truth: Truth, effort: int, counts: list[int]) -> NDArray[np.float64]:
    """(c,) recall by the number of candidates: those of fewer are the first of those of more."""
    most = counts[-1] if index.kind != "hnsw" else min(counts[-1], effort)  # a longer list is a longer queue
    within = [min(count, most) - 1 for count in counts]
    hits = np.zeros(len(counts))
    for part in parts_of(np.arange(len(truth.asked)), most):
        for i, rows in zip(part, index.propose(truth.queries[part], effort, most), strict=True):
            hits += np.minimum(np.isin(rows, truth.right[i]).cumsum()[within], truth.k)
    recall: NDArray[np.float64] = hits / (truth.k * len(truth.asked))
    return recall
