"""The scores of all pairs among photographs, genuine and impostor, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curve import BINS, count_scores

MOST_PAIRS = 1 << 29  # of impostors: all of 32,000 photographs; half a minute
_BLOCK_ROWS, _BLOCK_SCORES = 256, 1 << 22


@dataclass(frozen=True, slots=True)
class _Band:
    """Rows start to stop against rows start to last.

    Attributes:
        scores: (stop - start, last - start) float32.
        wanted: of the same shape, bool: each pair once.
    """

    start: int
    stop: int
    last: int
    scores: NDArray[np.float32]
    wanted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Impostors:
    """The cosines of pairs of photographs of two people.

    Attributes:
        counts: (BINS,) int64, see `curve.count_scores`.
        scores: (k,) float32, the highest ones, descending.
        rows: (k, 2) int64, the two photographs of each.
    """

    counts: NDArray[np.int64]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def genuine_counts(vectors: NDArray[np.float32], person: NDArray[np.int64]) -> NDArray[np.int64]:
    """(BINS,) int64: the cosines of all pairs of photographs of one person. See `curve.count_scores`.

    Args:
        vectors: (N, D) float32, unit rows.
        person: (N,) int64, equal for photographs of one person; -1 for those of nobody known, which form no pair.
    """
    counts = np.zeros(BINS, np.int64)
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))  # nobody's come first, and are no person
    for rows in np.split(order, starts)[1:]:
        for band in _bands(vectors[rows], len(rows) - 1):
            counts += count_scores(band.scores[band.wanted])
    return counts


def impostor_scores(
    vectors: NDArray[np.float32], person: NDArray[np.int64], *, most: int = MOST_PAIRS, top: int = 10, seed: int = 0
) -> Impostors:
    """Compare photographs of two people.

    All pairs, where they are at most `most`. Else the photographs are put into a random order, and each is compared
    with so many of those that follow it: everybody takes part, which a draw of photographs would not give, and a block
    is still one matrix product, which a draw of pairs would not be.

    Args:
        vectors, person: as for `genuine_counts`.
        most: pairs to look at; those of one person among them are left out.
        top: highest pairs to name; fewer where there are fewer.
        seed: of the order; the same one gives the same counts. 0 <= seed < 2**32.
    """
    rows = np.flatnonzero(person >= 0)
    width = max(1, len(rows) - 1)
    if len(rows) * (len(rows) - 1) // 2 > most:
        rows = np.random.RandomState(seed).permutation(rows)  # its stream is frozen for good
        width = max(1, most // len(rows))
    counts = np.zeros(BINS, np.int64)
    highest, pairs = np.empty(0, np.float32), np.empty((0, 2), np.int64)
    whose = person[rows]
    for band in _bands(vectors[rows], width):
        two = band.wanted & (whose[band.start : band.stop, None] != whose[band.start : band.last])
        scores = band.scores[two]
        counts += count_scores(scores)
        if len(highest) == top:
            here = np.argwhere(two & (band.scores > highest[-1]))  # soon hardly any
        else:
            lowest = np.partition(scores, -top)[-top] if len(scores) > top else -np.inf
            here = np.argwhere(two & (band.scores >= lowest))
        highest = np.concatenate([highest, band.scores[tuple(here.T)]])
        pairs = np.concatenate([pairs, rows[here + band.start]])
        best = np.argsort(-highest, kind="stable")[:top]
        highest, pairs = highest[best], pairs[best]
    return Impostors(counts, highest, pairs)


def _bands(vectors: NDArray[np.float32], width: int) -> Iterator[_Band]:
    """Each row and the `width` rows after it, a block of rows at a time."""
    step = min(_BLOCK_ROWS, max(1, _BLOCK_SCORES // (width + 1)))
    for start in range(0, len(vectors) - 1, step):
        stop = min(start + step, len(vectors))
        last = min(stop + width, len(vectors))
        row, column = np.arange(start, stop)[:, None], np.arange(start, last)
        wanted = (column > row) & (column <= row + width)
        yield _Band(start, stop, last, vectors[start:stop] @ vectors[start:last].T, wanted)
