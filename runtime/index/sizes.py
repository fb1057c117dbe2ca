"""How large an index is, by kind: pure arithmetic, before anything is made. A search keeps it in memory."""

from __future__ import annotations

import math

from ..errors import ConfigError

KINDS = ("flat", "sq8", "ivf", "hnsw")
LINKS = 32  # M of an HNSW graph: each row has 2 M at its lowest level, M at each above
_ROW_NUMBER, _LINK, _OFFSET, _LEVEL = 8, 4, 8, 4  # bytes, as FAISS keeps them


def index_bytes(kind: str, rows: int, dimension: int) -> int:
    """Bytes of an index.

    flat: the exact vectors, 4 N D. sq8: one byte a number, N D, and the range of each column. ivf: the same by lists,
    with the number of each row and the middle of each list, N (D + 8) + 4 L D. hnsw: one byte a number and the links of
    the graph, N (D + 4 (2 M + M / (M - 1)) + 12).

    Args:
        kind: one of KINDS.
        rows: N.
        dimension: D.
    Raises:
        ConfigError: there is no such kind.
    """
    codes, ranges = rows * dimension, 8 * dimension
    if kind == "flat":
        return 4 * codes
    if kind == "sq8":
        return codes + ranges
    if kind == "ivf":
        return codes + ranges + _ROW_NUMBER * rows + 4 * list_count(rows) * dimension
    if kind == "hnsw":
        links = _LINK * (2 * LINKS + LINKS / (LINKS - 1))  # a row is at one higher level with probability 1 / M
        return codes + ranges + math.ceil(rows * (links + _OFFSET + _LEVEL))
    raise ConfigError(f"there is no index of the kind {kind!r}; wanted: one of {', '.join(KINDS)}")


def list_count(rows: int) -> int:
    """Lists of an IVF index: about 4 sqrt(N), so that a list and the middles of all take about as long to look at."""
    return max(1, round(4 * math.sqrt(rows)))
