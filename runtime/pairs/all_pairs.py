"""Find all pairs of rows that score at least a threshold, block by block: exact, and in bounded memory.

Single-precision matrix products propose every pair that may reach the threshold (the margin is proven, see
`index.exact`). The proposed pairs are scored again in double precision, as in a search, and this score decides.
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

_SCORED_PAIRS = 8192  # pairs scored again per step, two times D doubles each


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """n pairs of rows.

    Attributes:
        first, second: (n,) int64; first < second.
        scores: (n,) float32, inner products in double precision, rounded once.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def pairs_above(
    embeddings: EmbeddingFile,
    threshold: float,
    *,
    tiling: Tiling | None = None,
    start: int = 0,
    products: TileProducts | None = None,
    max_pairs: int | None = None,
) -> Iterator[ScoredPairs]:
    """Yield all pairs of rows with a score of at least `threshold`, each once: one item per block, in order.

    A row of zeros, an empty output of the network, has no pairs. Two tiles of rows are in memory.

    Args:
        embeddings: an open embedding file.
        threshold: compared with the scores in FP32, as in a search.
        tiling: None for the default.
        start: number of blocks to skip, because their pairs are known.
        products: where products are computed; None for the CPU.
        max_pairs: most pairs in one block; None for no limit.
    Raises:
        ConfigError: the threshold is not a number.
        TooManyPairsError: a block has more than `max_pairs` pairs.
        StorageError: the file is damaged.
    """
    if not math.isfinite(threshold):
        raise ConfigError(f"the threshold is {threshold}; expected: a number from -1 to 1")
    tiling = tiling or Tiling(embeddings.rows)
    products = products or TileProducts()
    floor = fp32_floor(threshold, embeddings.dimension)
    left_tile, rows, left = -1, np.empty((0, embeddings.dimension), np.float32), None
    for i, j in tiling.blocks()[start:]:
        (top, stop), (low, end) = tiling.bounds(i), tiling.bounds(j)
        if i != left_tile:
            left_tile, rows = i, embeddings.block(top, stop)
            left = products.put(rows)
        columns = rows if i == j else embeddings.block(low, end)
        right = left if i == j else products.put(columns)
        proposed = products.at_least(left, right, floor, same=i == j)
        pairs = exact_pairs(rows, columns, proposed, threshold, max_pairs)
        yield ScoredPairs(pairs.first + top, pairs.second + low, pairs.scores)


def fp32_floor(threshold: float, dimension: int) -> np.float32:
    """Return the value that an FP32 product reaches whenever the exact score reaches the threshold."""
    floor: np.float32 = np.float32(float(np.float32(threshold)) - fp32_error_bound(dimension))
    return floor


def exact_pairs(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    proposed: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]],
    threshold: float,
    max_pairs: int | None = None,
) -> ScoredPairs:
    """Score proposed pairs exactly and keep those that reach the threshold, as rows of `left` and `right`.

    Args:
        left, right: (n, D) and (m, D) float32.
        proposed: from `TileProducts.at_least`.
        threshold: lowest score, compared in FP32.
        max_pairs: most pairs to keep; None for no limit.
    Raises:
        TooManyPairsError: more than `max_pairs` pairs reach the threshold.
    """
    left_nonzero, right_nonzero = (np.asarray(side.any(axis=1)) for side in (left, right))
    kept: list[ScoredPairs] = []
    count = 0
    for firsts, seconds in proposed:
        for start in range(0, len(firsts), _SCORED_PAIRS):
            first, second = firsts[start : start + _SCORED_PAIRS], seconds[start : start + _SCORED_PAIRS]
            scores = exact_scores(left[first], right[second])
            keep = (scores >= np.float32(threshold)) & left_nonzero[first] & right_nonzero[second]
            kept.append(ScoredPairs(first[keep], second[keep], scores[keep]))
            count += len(kept[-1])
            if max_pairs is not None and count > max_pairs:
                raise TooManyPairsError(
                    f"more than {max_pairs:,} pairs score {threshold:.4g} or more; raise the threshold"
                )
    return join_pairs(kept)


def join_pairs(pieces: Sequence[ScoredPairs]) -> ScoredPairs:
    """Concatenate pairs."""
    empty = ScoredPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    parts = zip(*((piece.first, piece.second, piece.scores) for piece in (empty, *pieces)), strict=True)
    return ScoredPairs(*map(np.concatenate, parts))
