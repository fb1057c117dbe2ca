"""How large an index is at most, and about how long it takes to make: pure arithmetic, before anything is made."""

from __future__ import annotations

import math

from ..errors import ConfigError

# Of approximate indexes, in the order of their bytes a row, for d directions: d / 2 + 8, d, and d and the links.
APPROXIMATE = ("ivf", "sq8", "hnsw")
KINDS = ("flat", *APPROXIMATE)  # all but flat lie beside it, which has the exact rows
# Below, exact search takes a few milliseconds, and there is little to train on: an index is made by name only.
FEW_ROWS = 50_000
LINKS = 16  # M of an HNSW graph: each row has 2 M at its lowest level, M at each above
_MOST_LISTS = 4096
_BLOCK_ROWS = 32  # of a list, whose last block is filled up: by half a block on average
_TRAINED, _PASSES = 131_072, 10  # rows of k-means at most, and how often it looks at them
_LINKED = (
    8 * 64 * 2 * LINKS
)  # rows that a new one of a graph is compared with, at an eighth of a matrix product's speed
_ROW_NUMBER, _LINK, _OFFSET, _LEVEL = 8, 4, 8, 4  # bytes, as FAISS keeps them


def index_bytes(kind: str, rows: int, dimension: int) -> int:
    """Bytes of an index, where all D dimensions are kept: an index of fewer is smaller.

    flat: the exact rows, 4 N D. ivf: half a byte a dimension and the number of each row, by L lists, with the middle of
    each list: N (D / 2 + 8) + 4 L D, and some for blocks that are not full. sq8: one byte a dimension, N D. hnsw: the
    same and the links of the graph, N (D + 4 (2 M + M / (M - 1)) + 12).

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
        lists = list_count(rows)
        blocks = (rows + lists * _BLOCK_ROWS // 2) * dimension // 2
        return blocks + _ROW_NUMBER * rows + 4 * lists * dimension + 4 * 16 * dimension
    if kind == "hnsw":
        links = _LINK * (2 * LINKS + LINKS / (LINKS - 1))  # a row is at one higher level with probability 1 / M
        return codes + ranges + math.ceil(rows * (links + _OFFSET + _LEVEL))
    raise ConfigError(f"there is no index of the kind {kind!r}; wanted: one of {', '.join(KINDS)}")


def build_s(kind: str, rows: int, dimension: int, *, flops: float, write_bytes_s: float) -> float:
    """Seconds that making an index takes, about; of one beside flat, flat's own are not in it.

    flat is written; the others turn all rows, ivf also compares them with the middles of its lists, and hnsw with each
    other. Measured: ivf of 1,000,000 x 512 in 12 s, of 5,000,000 in 317 s beside other work (docs/search.md).

    Args:
        kind, rows, dimension: as for `index_bytes`.
        flops: a second, of single-precision matrix products.
        write_bytes_s: of the disk.
    """
    if kind == "flat":
        return index_bytes(kind, rows, dimension) / write_bytes_s
    lists = list_count(rows) if kind == "ivf" else 0
    compared = rows * (dimension + lists + (_LINKED if kind == "hnsw" else 0))
    compared += min(rows, _TRAINED) * lists * _PASSES
    return 2.0 * compared * dimension / flops


def list_count(rows: int) -> int:
    """Lists of an IVF index: about the root of the rows, a power of two."""
    return int(min(_MOST_LISTS, 2 ** round(math.log2(max(1, rows)) / 2)))
