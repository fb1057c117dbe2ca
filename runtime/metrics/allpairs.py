"""Score all pairs of photos, genuine and impostor, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curve import BINS, count_scores

MAX_PAIRS = 1 << 29  # impostor pairs: all those of 32,000 photos; takes half a minute
_BLOCK_ROWS, _BLOCK_SCORES = 256, 1 << 22


@dataclass(frozen=True, slots=True)
class _Band:
    """Scores of rows start to stop against rows start to last.

    Attributes:
        scores: (stop - start, last - start) float32.
        is_pair: (stop - start, last - start) bool, true once per pair.
    """

    start: int
    stop: int
    last: int
    scores: NDArray[np.float32]
    is_pair: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Impostors:
    """Cosines of impostor pairs: two photos of two people.

    Attributes:
        counts: (BINS,) int64, see `curve.count_scores`.
        scores: (k,) float32, the k highest cosines, descending.
        rows: (k, 2) int64, the two photos of each.
    """

    counts: NDArray[np.int64]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def genuine_counts(vectors: NDArray[np.float32], person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the cosines of all genuine pairs: two photos of one person.

    Args:
        vectors: (N, D) float32, unit rows.
        person: (N,) int64, equal for photos of one person; -1 for unknown people, whose photos form no pair.
    Returns:
        (BINS,) int64, see `curve.count_scores`.
    """
    counts = np.zeros(BINS, np.int64)
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))  # unknown people come first and are skipped
    for rows in np.split(order, starts)[1:]:
        for band in _bands(vectors[rows], len(rows) - 1):
            counts += count_scores(band.scores[band.is_pair])
    return counts


def impostor_scores(
    vectors: NDArray[np.float32], person: NDArray[np.int64], *, max_pairs: int = MAX_PAIRS, top: int = 10, seed: int = 0
) -> Impostors:
    """Compare photos of two people.

    Compares all pairs if there are at most `max_pairs`. Otherwise shuffles the photos and compares each with a fixed
    number of those that follow it. So every person takes part, unlike in a sample of photos, and a block is still one
    matrix product, unlike with a sample of pairs.

    Args:
        vectors: (N, D) float32, unit rows.
        person: (N,) int64, equal for photos of one person; -1 for unknown people, whose photos form no pair.
        max_pairs: most pairs to score; genuine pairs among them are skipped.
        top: number of highest pairs to return, if there are as many.
        seed: random seed of the order, 0 <= seed < 2**32; the same seed gives the same counts.
    """
    rows = np.flatnonzero(person >= 0)
    width = max(1, len(rows) - 1)
    if len(rows) * (len(rows) - 1) // 2 > max_pairs:
        rows = np.random.RandomState(seed).permutation(rows)  # its stream never changes between NumPy versions
        width = max(1, max_pairs // len(rows))
    counts = np.zeros(BINS, np.int64)
    highest, pairs = np.empty(0, np.float32), np.empty((0, 2), np.int64)
    labels = person[rows]
    for band in _bands(vectors[rows], width):
        impostor = band.is_pair & (labels[band.start : band.stop, None] != labels[band.start : band.last])
        scores = band.scores[impostor]
        counts += count_scores(scores)
        if len(highest) == top:
            cells = np.argwhere(impostor & (band.scores > highest[-1]))  # after a few bands, hardly any
        else:
            lowest = np.partition(scores, -top)[-top] if len(scores) > top else -np.inf
            cells = np.argwhere(impostor & (band.scores >= lowest))
        highest = np.concatenate([highest, band.scores[tuple(cells.T)]])
        pairs = np.concatenate([pairs, rows[cells + band.start]])
        best = np.argsort(-highest, kind="stable")[:top]
        highest, pairs = highest[best], pairs[best]
    return Impostors(counts, highest, pairs)


def _bands(vectors: NDArray[np.float32], width: int) -> Iterator[_Band]:
    """Score each row against the `width` rows after it, a block of rows at a time."""
    step = min(_BLOCK_ROWS, max(1, _BLOCK_SCORES // (width + 1)))
    for start in range(0, len(vectors) - 1, step):
        stop = min(start + step, len(vectors))
        last = min(stop + width, len(vectors))
        row, column = np.arange(start, stop)[:, None], np.arange(start, last)
        is_pair = (column > row) & (column <= row + width)
        yield _Band(start, stop, last, vectors[start:stop] @ vectors[start:last].T, is_pair)
