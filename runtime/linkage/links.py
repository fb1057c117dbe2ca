"""The links of a graph of like faces: pairs of rows whose score reaches the threshold, as many as memory holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TooManyPairsError
from .blocks import Found

# 600 MB as they are kept, and some 2.5 GB while the graph is made of them.
MOST_LINKS = 50_000_000


@dataclass(frozen=True, slots=True)
class Links:
    """E links among N rows.

    Attributes:
        rows: N.
        first, second: (E,) int32, the two rows of each; first < second.
        scores: (E,) float32.
    """

    rows: int
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    scores: NDArray[np.float32]


def gather_links(found: Iterable[tuple[Found, float]], rows: int, *, most: int = MOST_LINKS) -> Links:
    """Keep all pairs.

    Args:
        found: each pair once; and the share of all pairs, 0 to 1, that has been compared by then.
        rows: N, below 2**31.
        most: pairs that are kept.
    Raises:
        TooManyPairsError: there are more, and so the threshold is too low; one to try is named.
    """
    pieces = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
    count = 0
    for some, done in found:
        count += len(some.scores)
        pieces.append((some.first.astype(np.int32), some.second.astype(np.int32), some.scores))
        if count > most:
            raise _too_many(np.concatenate([scores for _, _, scores in pieces]), done, most)
    first, second, scores = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Links(rows, first, second, scores)


def _too_many(scores: NDArray[np.float32], done: float, most: int) -> TooManyPairsError:
    """The error, with a threshold that some half of `most` pairs will reach if the rest is like what was compared."""
    kept = max(1, int(done * most / 2))
    proposed = math.ceil(1000 * float(np.partition(scores, -kept)[-kept])) / 1000
    return TooManyPairsError(
        f"{len(scores):,} pairs of photographs reach the threshold when {100 * done:.2g} % are compared; wanted: "
        f"at most {most:,} in all, as memory holds. The threshold is too low, or many photographs are of one kind: "
        f"try --threshold {proposed:.3f}"
    )
