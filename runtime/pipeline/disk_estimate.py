"""How much room a run takes: pure arithmetic, used before a run and by `facemill plan`."""

from __future__ import annotations

import numpy as np

from ..records import FACE


def room_while_running(
    rows: int, dimension: int, dtype: str, *, faces: bool, skip_duplicates: bool = False, longest: int = 64
) -> int:
    """Bytes beside the output while a run lasts: its segments, and the finished file made from them.

    Half of it is the finished file, and stays.

    Args:
        rows: photographs.
        dimension: D.
        dtype: "float32" or "float16", of the finished file.
        faces: whether they are looked for.
        skip_duplicates: whether digests are kept.
        longest: bytes of the longest path; compressed, more than 64 count for little.
    """
    vectors = rows * dimension * np.dtype(dtype).itemsize
    described = 2 * FACE.itemsize * rows if faces else 0
    return int(2.02 * vectors) + described + 3 * rows * min(longest, 64) + 64 * rows * skip_duplicates + (1 << 20)


def size(amount: float) -> str:
    """Bytes for a person: `20.7 GB`, `339 MB`."""
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.0f} MB"
