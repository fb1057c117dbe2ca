"""Rows to unit rows: the answer that `kernels/l2norm.cu` and the end of an engine's graph have to give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_NORM = 1e-12  # a shorter row is divided by this: the zero row stays zero instead of turning to NaN


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Divide each row by its length.

    Args:
        rows: (N, D) float16 or float32.
    Returns:
        (N, D) float32: unit rows, zero where the row is zero, NaN throughout where it holds a NaN; a new array.
    """
    wide = rows.astype(np.float32)
    norms = np.sqrt(np.sum(wide * wide, axis=1, keepdims=True))  # (N, 1)
    units: NDArray[np.float32] = wide / np.maximum(norms, np.float32(SMALLEST_NORM))
    return units
