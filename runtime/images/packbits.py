"""Check the PackBits compression of TIFF: whether the runs of a strip end with the strip.

Source: TIFF 6.0, section 9.
"""

from __future__ import annotations

_NOTHING = 128
_PADDING = 16  # bytes that a writer may leave after the runs; more of them are one byte again and again


def packbits_length(strip: bytes, wanted: int, most: int) -> int:
    """Number of bytes in the runs of a strip: `wanted` if it is whole, and else less.

    Args:
        strip: the runs, and perhaps padding.
        wanted: bytes of its rows.
        most: bytes of as many rows as any strip has: some writers fill the last one.
    Raises:
        ValueError: runs go on after the rows, so some of them are damaged.
    """
    length, end = _walk(strip, 0, 0, wanted)
    rest = strip[end:]
    if length > wanted:
        raise ValueError(f"damaged PackBits data: a run goes beyond {wanted} bytes")
    if len(rest) > _PADDING and rest.strip(rest[:1]) and _walk(strip, end, length, most) != (most, len(strip)):
        raise ValueError(f"damaged PackBits data: {len(rest)} bytes are left after {wanted}")
    return length


def _walk(strip: bytes, at: int, length: int, wanted: int) -> tuple[int, int]:
    """Length of the runs, and where they end: at or behind the wanted length, or with the strip."""
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
    return length, at
