"""Find out whether the image data of a doubtful JPEG are whole.

The decoder reports most missing data: see `jpeg_pixels.py`. But it takes zeros for pixels, and reports nothing.
What stands after the last pixel cannot change the picture: if it changes with other bytes there, pixels were missing.
And if the last bytes can change without a change of the picture, the decoder did not get that far. Only files with a
run of zeros in their image data are decoded more than once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .jpeg_header import ZERO_RUN, has_end, marker_within, restarts_missing, scan_ends, without_gaps, zeros_are_flat

_END_OF_IMAGE = b"\xff\xd9"
_OTHER_BYTES = b"\x55\xaa"
_LEFTOVER = 3  # bytes at the end of a scan, which belong to its last pixels
_FLIPS = (0x55, 0xAA)

Decode = Callable[[bytes], Any]  # a file to pixels, or None


def whole_jpeg(data: bytes, decode: Decode, *, sequential: bool) -> bytes:
    """A doubtful JPEG with its end marker, and without zeros between the segments of its header.

    Args:
        data: the file.
        decode: decodes a file, all pixels.
        sequential: whether it has one scan with all components.
    Raises:
        ValueError: image data are missing.
    """
    data = without_gaps(data)
    if sequential:
        start, end = next(scan_ends(data))
        if restarts_missing(data, start, end):
            raise ValueError("restart markers are missing in the image data")
        if marker_within(data, end):
            data = data[:end]  # all pixels stand before it, or the decoder says that some are missing
    if not has_end(data):
        data += _END_OF_IMAGE  # if more is missing, the decoder says so
    for start, end in scan_ends(data):
        if ZERO_RUN not in data[start:end]:
            continue
        zeros = end - len(data[start:end].rstrip(b"\0")) - start
        if not sequential and restarts_missing(data, start, end):
            raise ValueError("restart markers are missing in the image data")
        if zeros and _same(data, data[: end - zeros] + junk(zeros) + data[end:], decode):
            continue  # padding after the last pixel
        certain = sequential and not zeros_are_flat(data)
        if certain or not _same(data, data[:end] + junk(64) + data[end:], decode):
            raise ValueError("a part of the image data is zeros")
        if sequential and not zeros:  # an area of one colour may be zeros, in other kinds of scans as well
            last = data[end - _LEFTOVER : end]
            changes = (bytes(byte ^ flips for byte in last).replace(b"\xff", b"\x55") for flips in _FLIPS)
            if all(_same(data, data[: end - _LEFTOVER] + changed + data[end:], decode) for changed in changes):
                raise ValueError("a part of the image data is zeros: pixels end before the data do")
    return data


def junk(count: int) -> bytes:
    """Bytes that decode to something else than the zeros that a decoder puts for missing data."""
    return (_OTHER_BYTES * (count // 2 + 1))[:count]


def _same(first: bytes, second: bytes, decode: Decode) -> bool:
    """Whether two files show the same picture."""
    pictures = decode(first), decode(second)
    return all(picture is not None for picture in pictures) and np.array_equal(*pictures)
