"""Find most pairs within a time budget: group rows into lists, and compare each row with the lists nearest to it.

A pair is found if one of its rows is compared with the list of the other. Scores are exact. `measure_share` measures
the share of all pairs that was found.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..index.check import ensure_true_index
from ..index.flat import host_index
from ..index.placement import host_vectors
from ..storage.file import EmbeddingFile
from .all_pairs import ScoredPairs, exact_pairs, fp32_floor, join_pairs
from .tiles import TILE_ROWS, TileProducts

_SAMPLE_PER_LIST = 64
_MAX_LISTS_PER_ROW = 32  # 4 bytes per row each
_ITERATIONS = 10
_RATE_S = 1.0  # seconds to measure the rate
_SHARE_ROWS = 2000  # sampled rows, compared with all rows to measure the share of pairs found

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NearLists:
    """N rows in L lists at P ranks: at rank 0 in the nearest list, at rank 1 in the second nearest, and so on.

    Attributes:
        rows: (P, N) int32, sorted by list, ascending within a list.
        starts: (P, L + 1) int64; list l of rank p is rows[p, starts[p, l] : starts[p, l + 1]].
    """

    rows: NDArray[np.int32]
    starts: NDArray[np.int64]

    def members(self, rank: int, number: int) -> NDArray[np.int32]:
        """Return the rows that have this list at a rank."""
        start, stop = self.starts[rank, number : number + 2]
        return self.rows[rank, start:stop]

    def pairs(self) -> NDArray[np.int64]:
        """Count the comparisons of each list over all ranks, (L,) int64."""
        sizes = np.diff(self.starts, axis=1)  # (P, L)
        return np.asarray(sizes[0] * (sizes[0] - 1) // 2 + sizes[0] * sizes[1:].sum(axis=0))

    def limit(self, max_comparisons: float) -> NearLists:
        """Keep as many ranks as fit the number of comparisons, at least one."""
        ranks = len(self.rows)
        while ranks > 1 and NearLists(self.rows[:ranks], self.starts[:ranks]).pairs().sum() > max_comparisons:
            ranks -= 1
        return NearLists(self.rows[:ranks], self.starts[:ranks])


def make_lists(embeddings: EmbeddingFile, seed: int) -> NearLists:
    """Make lists around the k-means centres (FAISS) of a seeded sample; each row ranks the nearest lists.

    Args:
        embeddings: an open embedding file with at least two rows.
        seed: random seed of the sample and of k-means.
    Raises:
        MissingDependencyError: FAISS is not installed.
        StorageError: the file is damaged.
    """
    faiss = require("faiss", extra="cpu", purpose="finding pairs within a budget")
    lists = max(2, min(math.isqrt(embeddings.rows), embeddings.rows // _SAMPLE_PER_LIST))
    _, sample = sample_rows(embeddings, lists * _SAMPLE_PER_LIST, seed)
    means = faiss.Kmeans(
        embeddings.dimension, lists, niter=_ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1
    )
    means.train(sample)
    nearest = np.empty((embeddings.rows, min(_MAX_LISTS_PER_ROW, lists)), np.uint16 if lists < 1 << 16 else np.int32)
    start = 0
    for block in embeddings.blocks():
        nearest[start : start + len(block)] = means.index.search(block, nearest.shape[1])[1]
        start += len(block)
    logger.info("%d lists of %.0f rows on average", lists, embeddings.rows / lists)
    rows = np.empty(nearest.T.shape, np.int32)
    starts = np.zeros((len(rows), lists + 1), np.int64)
    for rank, column in enumerate(nearest.T):
        rows[rank] = np.argsort(column, kind="stable")
        np.cumsum(np.bincount(column, minlength=lists), out=starts[rank, 1:])
    return NearLists(rows, starts)


def sample_rows(embeddings: EmbeddingFile, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw n rows at random and read them in bounded memory.

    Args:
        embeddings: an open embedding file.
        count: n, or fewer if the file has fewer rows.
        seed: random seed; the same seed draws the same rows.
    Returns:
        Row numbers, (n,) int64 ascending, and embeddings, (n, D) float32.
    """
    chosen = np.random.default_rng(seed).choice(embeddings.rows, min(embeddings.rows, count), replace=False)
    chosen.sort()
    return chosen, embeddings.vectors_of(chosen)


def pairs_near(
    embeddings: EmbeddingFile, threshold: float, lists: NearLists, *, start: int, products: TileProducts, max_pairs: int
) -> Iterator[ScoredPairs]:
    """Yield the pairs of rows with a score of at least `threshold`, one of which is compared with the other's list.

    Yields one item per list. A pair may come twice. Rows are read from the exact index beside the file, which is
    compared with the file first, and built if it does not exist.

    Args:
        embeddings: an open embedding file.
        threshold: compared with the scores in FP32, as in a search.
        lists: lists of the file's rows.
        start: number of lists to skip, because their pairs are known.
        products: where products are computed.
        max_pairs: most pairs in one list.
    Raises:
        TooManyPairsError: a list has more than `max_pairs` pairs.
        StorageError: the file is damaged.
        MissingDependencyError: FAISS is not installed.
    """
    floor = fp32_floor(threshold, embeddings.dimension)
    host = host_index(embeddings, ensure_true_index(embeddings) if embeddings.rows else None)
    vectors = host_vectors(host)  # (N, D) float32, mapped
    for number in range(start, lists.starts.shape[1] - 1):
        kept: list[ScoredPairs] = []
        members = list(_tiles(lists.members(0, number)))
        ranked = [lists.members(rank, number) for rank in range(1, len(lists.rows))]
        visitors = list(_tiles(np.concatenate(ranked))) if ranked else []
        for i, row_numbers in enumerate(members):
            rows = vectors[row_numbers]
            left = products.put(rows)
            for column_numbers in (*members[i:], *visitors):
                same = column_numbers is row_numbers
                columns = rows if same else vectors[column_numbers]
                right = left if same else products.put(columns)
                proposed = products.at_least(left, right, floor, same=same)
                pairs = exact_pairs(rows, columns, proposed, threshold, max_pairs)
                first = row_numbers[pairs.first].astype(np.int64)
                second = column_numbers[pairs.second].astype(np.int64)
                kept.append(ScoredPairs(np.minimum(first, second), np.maximum(first, second), pairs.scores))
        yield join_pairs(kept)


def _tiles(rows: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    for start in range(0, len(rows), TILE_ROWS):
        yield rows[start : start + TILE_ROWS]


def measure_rate(
    embeddings: EmbeddingFile, threshold: float, lists: NearLists, products: TileProducts, max_pairs: int
) -> float:
    """Measure the comparisons per second on the first lists. Arguments and errors are those of `pairs_near`."""
    pieces = pairs_near(embeddings, threshold, lists, start=0, products=products, max_pairs=max_pairs)
    next(pieces)  # builds the index, and warms up
    compared, start = 0, time.perf_counter()
    for work, _ in zip(lists.pairs()[1:].tolist(), pieces, strict=True):
        compared += work
        if time.perf_counter() - start > _RATE_S:
            break
    return compared / (time.perf_counter() - start)


def measure_share(
    embeddings: EmbeddingFile, pairs: ScoredPairs, threshold: float, products: TileProducts, seed: int
) -> tuple[float, int]:
    """Measure the share of all pairs that was found, by an exact search for the pairs of random rows.

    Args:
        embeddings: an open embedding file.
        pairs: the pairs found, each once.
        threshold: threshold of these pairs.
        products: where products are computed.
        seed: random seed of the rows.
    Returns:
        The share, 0 to 1, and the number of pairs that it was measured on; (1, 0) if there are none.
    """
    rows, vectors = sample_rows(embeddings, _SHARE_ROWS, seed + 1)
    left, floor = products.put(vectors), fp32_floor(threshold, embeddings.dimension)
    keys, start = [np.empty(0, np.int64)], 0
    for block in embeddings.blocks():
        near = exact_pairs(vectors, block, products.at_least(left, products.put(block), floor), threshold)
        first, second = rows[near.first], near.second + start
        keys.append(_keys(first, second, embeddings.rows)[first != second])
        start += len(block)
    expected = np.unique(np.concatenate(keys))
    found = np.isin(expected, _keys(pairs.first, pairs.second, embeddings.rows))
    return (float(found.mean()) if len(expected) else 1.0), len(expected)


def _keys(first: NDArray[np.int64], second: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return a number for each pair that does not depend on the order of its rows."""
    return np.minimum(first, second) * rows + np.maximum(first, second)
