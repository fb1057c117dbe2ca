"""Walk over the boxes of a file of the ISO base media family: JPEG 2000 and AVIF.

Source: ISO 14496-12, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 100_000  # of one level
_TAIL = bytes(64)


class Box(NamedTuple):
    """One box: its kind, and where its content begins and ends; the end may lie behind the file."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places of a file, by default of the whole file, at most MAX_BOXES.

    Raises:
        struct.error: a box is truncated.
    """
    stop = len(data) if end is None else min(end, len(data))
    for _ in range(MAX_BOXES):
        if start + 8 > stop:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        behind = start + length if length else stop
        yield Box(kind, start + head, behind)
        if length and length < head:
            return
        start = behind


def check_boxes(data: bytes) -> None:
    """Check that the boxes with the image data of a file end within it, and not in zeros.

    Raises:
        ValueError: the file was cut short.
    """
    for box in boxes(data):
        if box.kind in (b"jp2c", b"mdat"):
            if box.end > len(data):
                raise ValueError(f"the image data end at byte {len(data)} of {box.end}: the file was cut short")
            if data[box.end - len(_TAIL) : box.end] == _TAIL:
                raise ValueError("the image data end in zeros: the file was cut short")
