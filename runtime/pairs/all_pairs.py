"""All pairs of rows that score at least a threshold, a block at a time: exact, and in bounded memory.

Single-precision matrix products propose every pair that may reach the threshold (the margin is a proven one, see
`index.exact`); what is proposed is scored again in double precision, as a search scores it, and that decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, TooManyPairsError
from ..index.exact import exact_scores, fp32_error_bound
from ..storage.file import EmbeddingFile
from .tiles import TileProducts, Tiling

_SCORED_PAIRS = 8192  # pairs scored again at once: twice D doubles each


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs of rows.

    Attributes:
        first, second: (n,) int64; first < second.
        scores: (n,) float32: inner products in double precision, rounded once.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def pairs_above(
    gallery: EmbeddingFile,
    threshold: float,
    *,
    tiling: Tiling | None = None,
    start: int = 0,
    products: TileProducts | None = None,
    most: int | None = None,
) -> Iterator[ScoredPairs]:
    """All pairs of rows with a score of at least `threshold`, each once: one item for each block, in order.

    A row of zeros, for which the network answered zero, pairs with nobody. Two tiles of rows are in memory.

    Args:
        gallery: an open embedding file.
        threshold: compared with the scores in FP32, as a search compares it.
        tiling: None for the usual one.
        start: blocks left out at the beginning: what is known already.
        products: where they are computed; None for the CPU.
        most: pairs in one block at most; None for no limit.
    Raises:
        ConfigError: the threshold is not a number.
        TooManyPairsError: a block has more pairs than `most`.
        StorageError: the gallery is damaged.
    """
    if not math.isfinite(threshold):
        raise ConfigError(f"the threshold is {threshold}; wanted: a number from -1 to 1")
    tiling = tiling or Tiling(gallery.rows)
    products = products or TileProducts()
    floor = fp32_floor(threshold, gallery.dimension)
    held, rows, left = -1, np.empty((0, gallery.dimension), np.float32), None
    for i, j in tiling.blocks()[start:]:
        (top, stop), (low, end) = tiling.bounds(i), tiling.bounds(j)
        if i != held:
            held, rows = i, gallery.block(top, stop)
            left = products.put(rows)
        others = rows if i == j else gallery.block(low, end)
        right = left if i == j else products.put(others)
        found = exact_pairs(rows, others, products.at_least(left, right, floor, same=i == j), threshold, most)
        yield ScoredPairs(found.first + top, found.second + low, found.scores)


def fp32_floor(threshold: float, dimension: int) -> np.float32:
    """What products in FP32 reach wherever the exact score reaches the threshold."""
    floor: np.float32 = np.float32(float(np.float32(threshold)) - fp32_error_bound(dimension))
    return floor


def exact_pairs(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    proposed: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]],
    threshold: float,
    most: int | None = None,
) -> ScoredPairs:
    """The proposed pairs that truly reach the threshold, as rows of `left` and `right`.

    Args:
        left, right: (n, D) and (m, D) float32.
        proposed: of `TileProducts.at_least`.
        threshold, most: as for `pairs_above`.
    Raises:
        TooManyPairsError: there are more than `most`.
    """
    left_lives, right_lives = (np.asarray(side.any(axis=1)) for side in (left, right))
    kept: list[ScoredPairs] = []
    count = 0
    for firsts, seconds in proposed:
        for at in range(0, len(firsts), _SCORED_PAIRS):
            first, second = firsts[at : at + _SCORED_PAIRS], seconds[at : at + _SCORED_PAIRS]
            scores = exact_scores(left[first], right[second])
            good = (scores >= np.float32(threshold)) & left_lives[first] & right_lives[second]
            kept.append(ScoredPairs(first[good], second[good], scores[good]))
            count += len(kept[-1])
            if most is not None and count > most:
                raise TooManyPairsError(f"more than {most:,} pairs score {threshold:.4g} or more; raise the threshold")
    return join_pairs(kept)


def join_pairs(pieces: Sequence[ScoredPairs]) -> ScoredPairs:
    """All of them, one after the other."""
    empty = ScoredPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    parts = zip(*((one.first, one.second, one.scores) for one in (empty, *pieces)), strict=True)
    return ScoredPairs(*map(np.concatenate, parts))
