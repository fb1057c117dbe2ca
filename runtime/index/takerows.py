"""Some rows of a matrix that comes a block at a time, as a gallery's does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def take_rows(blocks: Iterable[NDArray[np.float32]], rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """Rows of a matrix that comes a block at a time.

    Args:
        blocks: (b, D) float32 each, in order.
        rows: (n,) int64, ascending.
        dimension: D.
    Returns:
        (n, D) float32; a new array.
    """
    found = np.empty((len(rows), dimension), np.float32)
    start = 0
    for block in blocks:
        first, last = np.searchsorted(rows, (start, start + len(block)))
        found[first:last] = block[rows[first:last] - start]
        start += len(block)
    return found
