"""Check the LZW compression of TIFF: how many bytes a strip holds, or that it is damaged.

The codes between two clear codes have known widths, so that NumPy reads them all at once.
Source: TIFF 6.0, section 13.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CLEAR, _END, _FIRST = 256, 257, 258
_TABLE = 4096
# Bits of the n-th code after a clear code: a decoder adds an entry with each code but the first.
_WIDTHS = np.select([np.arange(_TABLE - _FIRST) < n for n in (254, 766, 1790)], [9, 10, 11], 12)
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)])  # bits


def lzw_length(strip: bytes) -> int | None:
    """Number of bytes that a strip holds; None if it is not checked: the old kind of LZW, or one clear code
    after another.

    Raises:
        ValueError: a code is not in the table yet.
    """
    most = 16 + len(strip) // 64  # clear codes; a writer clears a full table, and no check is worth more time than that
    if len(strip) > 1 and strip[0] == 0 and strip[1] & 1:
        return None
    data = np.frombuffer(strip + bytes(3), np.uint8).astype(np.uint32)
    at, bits, length = 0, 8 * len(strip), 0
    while at + 9 <= bits:
        most -= 1
        if not most:
            return None
        codes = _codes_from(data, at, bits)
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(special) and len(codes) == len(_WIDTHS):
            raise ValueError("damaged LZW data: the table overflows")
        count = int(special[0]) if len(special) else len(codes)
        length += _length_of(codes[:count].astype(np.int64))
        if not len(special) or codes[count] == _END:
            break
        at += int(_STARTS[count + 1])
    return length


def _codes_from(data: NDArray[np.uint32], at: int, bits: int) -> NDArray[np.uint32]:
    """The codes from a bit on, as far as the table and the data go."""
    count = int(np.searchsorted(_STARTS, bits - at, "right")) - 1
    starts, widths = at + _STARTS[:count], _WIDTHS[:count].astype(np.uint32)
    first = starts >> 3
    window = data[first] << 16 | data[first + 1] << 8 | data[first + 2]
    return np.asarray(window >> (24 - (starts & 7).astype(np.uint32) - widths) & ((1 << widths) - 1), np.uint32)


def _length_of(codes: NDArray[np.int64]) -> int:
    """Number of bytes that the codes after a clear code stand for."""
    if (codes > _FIRST - 1 + np.arange(len(codes))).any() or (len(codes) and codes[0] > 255):
        raise ValueError("damaged LZW data: a code is not in the table yet")
    # Entry 258 + n is the string of code n and one byte more. So a code is one byte longer than the code that made it.
    parents = np.where(codes >= _FIRST, codes - _FIRST, -1)
    lengths = (parents >= 0).astype(np.int64)
    while (parents >= 0).any():  # follow 1, 2, 4 ... steps at once
        known = parents >= 0
        lengths[known] += lengths[parents[known]]
        parents[known] = parents[parents[known]]
    return int((lengths + 1).sum())
