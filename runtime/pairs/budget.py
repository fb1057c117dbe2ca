"""How long comparing all rows takes, and what an approximate search has found: measured, not promised."""

from __future__ import annotations

import logging
import math
import time

import numpy as np
from numpy.typing import NDArray

from ..storage.file import EmbeddingFile
from ..text import duration
from .blocks import Found, floor_of, settle_pairs
from .near import Lists, pairs_near, sampled
from .products import Products

_PROBED_ROWS = 2048  # of the tile by which the rate is measured
_SHARE_ROWS = 2000  # whose pairs are all looked for, to know what share was found
_SUGGEST_ROWS = 4096
_PROBED_S = 1.0

logger = logging.getLogger(__name__)


def time_for_all(gallery: EmbeddingFile, products: Products, budget_s: float | None) -> bool:
    """Whether a budget allows to compare all rows. Says in the log how long that takes.

    Args:
        gallery: an open embedding file.
        products: where they are compared.
        budget_s: seconds; None for no limit.
    """
    tile = gallery.block(0, min(gallery.rows, _PROBED_ROWS))
    placed = products.put(tile)
    times = []
    for _ in range(3):  # the first one warms up
        start = time.perf_counter()
        for _ in products.at_least(placed, placed, np.float32(np.inf)):
            pass
        times.append(time.perf_counter() - start)
    rate = len(tile) ** 2 / min(times[1:])
    total = gallery.rows * (gallery.rows - 1) // 2
    words = "%s rows make %s comparisons, at about %s million a second: %s"
    logger.info(words, f"{gallery.rows:,}", f"{total:,}", f"{rate / 1e6:,.0f}", duration(total / max(rate, 1)))
    if budget_s is None or total <= rate * budget_s:
        return True
    logger.warning(
        "that is longer than the budget of %s: the search is approximate. For all pairs, leave out --budget",
        duration(budget_s),
    )
    return False


def rate_within(gallery: EmbeddingFile, threshold: float, lists: Lists, products: Products, most: int) -> float:
    """Comparisons a second within lists, by the first of them.

    Args:
        gallery, threshold, lists, products, most: as for `near.pairs_near`.
    Raises:
        As `near.pairs_near`.
    """
    pieces = pairs_near(gallery, threshold, lists, start=0, products=products, most=most)
    next(pieces)  # makes the index, and warms up
    compared, start = 0, time.perf_counter()
    for work, _ in zip(lists.pairs()[1:].tolist(), pieces, strict=True):
        compared += work
        if time.perf_counter() - start > _PROBED_S:
            break
    return compared / (time.perf_counter() - start)


def share_found(
    gallery: EmbeddingFile, found: Found, threshold: float, products: Products, seed: int
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
    rows, vectors = sampled(gallery, _SHARE_ROWS, seed + 1)
    left, floor = products.put(vectors), floor_of(threshold, gallery.dimension)
    keys, at = [np.empty(0, np.int64)], 0
    for block in gallery.blocks():
        near = settle_pairs(vectors, block, products.at_least(left, products.put(block), floor), threshold)
        first, second = rows[near.first], near.second + at
        keys.append(_keys(first, second, gallery.rows)[first != second])
        at += len(block)
    wanted = np.unique(np.concatenate(keys))
    good = np.isin(wanted, _keys(found.first, found.second, gallery.rows))
    return (float(good.mean()) if len(wanted) else 1.0), len(wanted)


def _keys(first: NDArray[np.int64], second: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """A number for each pair, whichever row is named first."""
    return np.minimum(first, second) * rows + np.maximum(first, second)


def suggest_threshold(gallery: EmbeddingFile, most: int, threshold: float) -> float:
    """A threshold, in thousandths, that about half of `most` pairs reach, by rows drawn at random.

    Args:
        gallery: an open embedding file.
        most: pairs.
        threshold: that more pairs reach; the answer is higher.
    """
    _, vectors = sampled(gallery, _SUGGEST_ROWS, 0)
    above = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]  # (S (S - 1) / 2,) float32
    share = most / max(1, gallery.rows * (gallery.rows - 1))
    kept = min(len(above), max(1, int(share * len(above))))
    score = float(np.partition(above, -kept)[-kept]) if len(above) else threshold
    return max(math.ceil(1000 * score) / 1000, threshold + 0.001)
