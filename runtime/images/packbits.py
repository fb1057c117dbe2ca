"""Check the PackBits compression of TIFF: whether the runs of a strip end with the strip.

Source: TIFF 6.0, section 9.
"""

from __future__ import annotations

_NOTHING = 128


def packbits_length(strip: bytes, wanted: int) -> int:
    """Number of bytes in the runs of a strip: `wanted` if it is whole, and else less, or more by a part of a run."""
    at, length = 0, 0
    while at + 1 < len(strip) and length < wanted:
        code = strip[at]
        if code < _NOTHING:  # the next bytes as they are
            length += min(code + 1, len(strip) - at - 1)
            at += 2 + code
        elif code > _NOTHING:  # the next byte, again and again
            length += 257 - code
            at += 2
        else:
            at += 1
    return length
