"""Find most pairs within a budget: rows are in lists by nearness, and a row is compared with the lists nearest to it.

A pair is found if one of its rows is compared with the list of the other. Pairs have exact scores, and the share of all
pairs that is found is measured, see `share_found`.
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
from ..index.flat import host_index
from ..index.indexfile import ensure_index
from ..index.placement import host_vectors
from ..storage.file import EmbeddingFile
from .all_pairs import ScoredPairs, exact_pairs, fp32_floor, join_pairs
from .tiles import TILE_ROWS, TileProducts

_SAMPLE_PER_LIST = 64
_MAX_LISTS_PER_ROW = 32  # 4 bytes a row each
_ITERATIONS = 10
_RATE_S = 1.0  # how long the rate is measured
_SHARE_ROWS = 2000  # rows whose pairs are all looked for, to measure the share that was found

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NearLists:
    """N rows in L lists, P times: in the list nearest to them, in the second nearest, and so on.

    Attributes:
        rows: (P, N) int32, sorted by list, and within it ascending.
        starts: (P, L + 1) int64: list l of rank p is rows[p, starts[p, l] : starts[p, l + 1]].
    """

    rows: NDArray[np.int32]
    starts: NDArray[np.int64]

    def members(self, rank: int, number: int) -> NDArray[np.int32]:
        """The rows whose list of that rank is this one."""
        start, stop = self.starts[rank, number : number + 2]
        return self.rows[rank, start:stop]

    def pairs(self) -> NDArray[np.int64]:
        """(L,) int64 comparisons that each list takes, with all ranks."""
        sizes = np.diff(self.starts, axis=1)  # (P, L)
        return np.asarray(sizes[0] * (sizes[0] - 1) // 2 + sizes[0] * sizes[1:].sum(axis=0))

    def within(self, most: float) -> NearLists:
        """As many of the ranks as take at most so many comparisons; always one."""
        ranks = len(self.rows)
        while ranks > 1 and NearLists(self.rows[:ranks], self.starts[:ranks]).pairs().sum() > most:
            ranks -= 1
        return NearLists(self.rows[:ranks], self.starts[:ranks])


def make_lists(gallery: EmbeddingFile, seed: int) -> NearLists:
    """NearLists about the means of a seeded sample, by FAISS; every row ranks those nearest to it.

    Args:
        gallery: at least two rows.
        seed: of the sample and of k-means.
    Raises:
        MissingDependencyError: FAISS is not installed.
        StorageError: the gallery is damaged.
    """
    faiss = require("faiss", extra="cpu", purpose="pairs within a budget")
    lists = max(2, min(math.isqrt(gallery.rows), gallery.rows // _SAMPLE_PER_LIST))
    _, sample = sample_rows(gallery, lists * _SAMPLE_PER_LIST, seed)
    means = faiss.Kmeans(
        gallery.dimension, lists, niter=_ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1
    )
    means.train(sample)
    nearest = np.empty((gallery.rows, min(_MAX_LISTS_PER_ROW, lists)), np.uint16 if lists < 1 << 16 else np.int32)
    at = 0
    for block in gallery.blocks():
        nearest[at : at + len(block)] = means.index.search(block, nearest.shape[1])[1]
        at += len(block)
    logger.info("%d lists of %.0f rows on average", lists, gallery.rows / lists)
    rows = np.empty(nearest.T.shape, np.int32)
    starts = np.zeros((len(rows), lists + 1), np.int64)
    for rank, column in enumerate(nearest.T):
        rows[rank] = np.argsort(column, kind="stable")
        np.cumsum(np.bincount(column, minlength=lists), out=starts[rank, 1:])
    return NearLists(rows, starts)


def sample_rows(gallery: EmbeddingFile, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows drawn at random: their numbers, (n,) int64 ascending, and their embeddings, (n, D) float32.

    Args:
        gallery: read once, in bounded memory.
        count: n at most.
        seed: the same one draws the same rows.
    """
    chosen = np.random.default_rng(seed).choice(gallery.rows, min(gallery.rows, count), replace=False)
    chosen.sort()
    return chosen, gallery.vectors_of(chosen)


def pairs_near(
    gallery: EmbeddingFile, threshold: float, lists: NearLists, *, start: int, products: TileProducts, most: int
) -> Iterator[ScoredPairs]:
    """Pairs of rows with a score of at least `threshold`, of which one looks into the other's list: one item a list.

    A pair may come twice, when both do. Rows come from the exact index beside the gallery, which is made when needed.

    Args:
        gallery, threshold, start, products, most: as for `all_pairs.pairs_above`.
        lists: of the gallery.
    Raises:
        TooManyPairsError, StorageError, MissingDependencyError: as `all_pairs.pairs_above`, and FAISS.
    """
    floor = fp32_floor(threshold, gallery.dimension)
    host = host_index(gallery, ensure_index(gallery) if gallery.rows else None)
    vectors = host_vectors(host)  # (N, D) float32, mapped
    for number in range(start, lists.starts.shape[1] - 1):
        kept: list[ScoredPairs] = []
        homes = list(_tiles(lists.members(0, number)))
        looking = [lists.members(rank, number) for rank in range(1, len(lists.rows))]
        guests = list(_tiles(np.concatenate(looking))) if looking else []
        for i, mine in enumerate(homes):
            rows = vectors[mine]
            left = products.put(rows)
            for theirs in (*homes[i:], *guests):
                same = theirs is mine
                others = rows if same else vectors[theirs]
                right = left if same else products.put(others)
                found = exact_pairs(rows, others, products.at_least(left, right, floor, same=same), threshold, most)
                first, second = mine[found.first].astype(np.int64), theirs[found.second].astype(np.int64)
                kept.append(ScoredPairs(np.minimum(first, second), np.maximum(first, second), found.scores))
        yield join_pairs(kept)


def _tiles(rows: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    for start in range(0, len(rows), TILE_ROWS):
        yield rows[start : start + TILE_ROWS]


def rate_within(gallery: EmbeddingFile, threshold: float, lists: NearLists, products: TileProducts, most: int) -> float:
    """Comparisons a second within lists, by the first of them.

    Args:
        gallery, threshold, lists, products, most: as for `pairs_near`.
    Raises:
        As `pairs_near`.
    """
    pieces = pairs_near(gallery, threshold, lists, start=0, products=products, most=most)
    next(pieces)  # makes the index, and warms up
    compared, start = 0, time.perf_counter()
    for work, _ in zip(lists.pairs()[1:].tolist(), pieces, strict=True):
        compared += work
        if time.perf_counter() - start > _RATE_S:
            break
    return compared / (time.perf_counter() - start)


def share_found(
    gallery: EmbeddingFile, found: ScoredPairs, threshold: float, products: TileProducts, seed: int
) -> tuple[float, int]:
    """What share of all pairs was found, by rows drawn at random whose pairs are all looked for.

    Args:
        gallery: an open embedding file.
        found: each pair once.
        threshold: that they reach.
        products: where products are computed.
        seed: of the rows.
    Returns:
        The share, and the number of pairs that it is the share of; (1, 0) where there are none.
    """
    rows, vectors = sample_rows(gallery, _SHARE_ROWS, seed + 1)
    left, floor = products.put(vectors), fp32_floor(threshold, gallery.dimension)
    keys, at = [np.empty(0, np.int64)], 0
    for block in gallery.blocks():
        near = exact_pairs(vectors, block, products.at_least(left, products.put(block), floor), threshold)
        first, second = rows[near.first], near.second + at
        keys.append(_keys(first, second, gallery.rows)[first != second])
        at += len(block)
    wanted = np.unique(np.concatenate(keys))
    good = np.isin(wanted, _keys(found.first, found.second, gallery.rows))
    return (float(good.mean()) if len(wanted) else 1.0), len(wanted)


def _keys(first: NDArray[np.int64], second: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """A number for each pair, whichever row is named first."""
    return np.minimum(first, second) * rows + np.maximum(first, second)
