"""How wrong an inner product may be that FAISS reports, by the precision that it was stored and summed in.

Rigorous bounds, not estimates: the proof in `settle` stands on them. They hold for vectors no longer than MAX_NORM,
which `EmbeddingFile.blocks` holds the rows to and `FlatIndex.search` the queries.
"""

from __future__ import annotations

import math

from ..records import MAX_NORM

_U32, _U16 = 2.0**-24, 2.0**-11  # unit roundoffs, to nearest
_TINY16 = 2.0**-25  # half a step of FP16 below its normal range
_SPARE = 3  # roundings besides the sum: the settled score and a bound to FP32, and one to spare
_SECOND_ORDER = 1.01


def single_error(dimension: int) -> float:
    """The most that an inner product summed in FP32 is wrong by, in whatever order and with or without FMA.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), 3.1: |fl(x'y) - x'y| <= gamma_n |x|'|y|,
    and |x|'|y| <= length of x times length of y (Cauchy-Schwarz).
    """
    return _SECOND_ORDER * MAX_NORM**2 * (dimension + _SPARE) * _U32


def half_error(dimension: int) -> float:
    """The most that an inner product is wrong by when rows and query are rounded to FP16 and summed in FP32.

    Rounding moves a vector x by at most r = u |x| + sqrt(n) t: u for its normal numbers, t for the tiny ones. Then
    |q'x - Q'X| <= |q - Q| |X| + |q| |x - X| <= r (|x| + r) + |q| r, about 2**-10 for unit vectors. Products of two
    FP16 numbers are exact in FP32; tensor cores truncate where they add, which is allowed for with four roundings each.
    Source: Higham (2002), 2.1 and 3.1; Fasi et al., Numerical behavior of NVIDIA tensor cores (2021), for the sums.
    """
    moved = _U16 * MAX_NORM + math.sqrt(dimension) * _TINY16
    products = moved * (MAX_NORM + moved) + MAX_NORM * moved
    sums = 4 * (dimension + _SPARE) * _U32 * (MAX_NORM + moved) ** 2
    return _SECOND_ORDER * (products + sums)
