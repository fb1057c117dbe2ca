"""Read the header of an AVIF file: the size and position of its picture, and of all that is decoded for it.

The container states the size of each item, and so does the first AV1 data of the item. A decoder makes room for what
the data say. So a file whose data are larger than its container says is refused.
Sources: AVIF (av1-avif 1.1), HEIF (ISO 23008-12), AV1 bitstream specification, section 5.5.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from .boxes import MAX_BOXES, Box, boxes, check_boxes
from .header_fields import Header, UnsupportedImageError

MAX_TILES = 4096  # of a picture
MAX_UNITS = 1000  # of the AV1 data of an item
_OVERLAP = 16  # times the file: all data of a picture, whose items may share bytes
_SEQUENCE = 1  # kind of the unit of AV1 data that states the size
_SLACK = 64  # pixels: AV1 codes pictures in blocks of at most 128
_PICTURE, _ALPHA = b"dimg", b"auxl"  # references: from a grid to its tiles, from transparency to its picture
# Orientation of the quarter turns against the clock (irot), then of both mirrors (imir) behind each.
_TURNS = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}


@dataclass(slots=True)
class _Item:
    """An item of the container.

    Attributes:
        kind: "av01", "grid" or another.
        extents: start and end of its data in the file.
        properties: its properties.
    """

    kind: bytes = b""
    extents: list[tuple[int, int]] = field(default_factory=list)
    properties: list[Box] = field(default_factory=list)


def read_avif(data: bytes) -> Header:
    """The header of an AVIF file.

    Raises:
        ValueError, struct.error, IndexError: it is damaged, or its data do not fit its container.
    """
    check_boxes(data)
    top = {box.kind: box for box in boxes(data)}
    if b"meta" not in top:
        raise ValueError("the AVIF file has no image size")
    meta = {box.kind: box for box in boxes(data, top[b"meta"].start + 4, top[b"meta"].end)}
    items = _items(data, meta)
    references = _references(data, meta)
    main = _main(data, meta)
    if main not in items:
        raise ValueError("the AVIF file has no picture")
    width, height = _stated(data, items[main])
    tiles = references.get((_PICTURE, main), [])
    alpha = [source for (kind, source), to in references.items() if kind == _ALPHA and main in to]
    alpha_tiles = [tile for source in alpha for tile in references.get((_PICTURE, source), [])]
    if len(tiles) + len(alpha_tiles) > MAX_TILES:
        raise UnsupportedImageError(f"an AVIF file of more than {MAX_TILES} tiles")
    numbers = main, *alpha, *tiles, *alpha_tiles
    if not items.keys() >= {*numbers}:
        raise ValueError("a part of the picture of the AVIF file is missing")
    if sum(end - start for number in {*numbers} for start, end in items[number].extents) > _OVERLAP * len(data):
        raise ValueError("the AVIF file says that its data are longer than it is")
    for number in (main, *alpha):
        _check_size(data, items[number], (width, height))
    for number in {*tiles, *alpha_tiles}:
        _check_size(data, items[number], _stated(data, items[number]))
    tile_pixels = sum(math.prod(_stated(data, items[number])) for number in (*tiles, *alpha_tiles))
    for size in _track_sizes(data, top):
        _compare(size, (width, height))
    return Header(
        "avif",
        width,
        height,
        alpha=bool(alpha),
        orientation=_orientation(data, items[main]),
        block_pixels=tile_pixels,
    )


def _check_size(data: bytes, item: _Item, stated: tuple[int, int]) -> None:
    """Check that what an item says of itself, and its data, are not larger than the picture they are for."""
    _compare(_stated(data, item), stated)
    content = b"".join(data[start:end] for start, end in item.extents)
    if item.kind == b"grid":
        _compare(struct.unpack_from(">II" if content[1] & 1 else ">HH", content, 4), stated)
    elif item.kind == b"av01":
        for size in _sequence_sizes(content):
            _compare(size, stated)


def _compare(size: tuple[int, ...], stated: tuple[int, int]) -> None:
    if any(side >= limit + _SLACK for side, limit in zip(size, stated, strict=True)):
        raise ValueError(f"the AVIF file says {stated[0]}x{stated[1]} pixels, and its data {size[0]}x{size[1]}")


def _stated(data: bytes, item: _Item) -> tuple[int, int]:
    """The size that the container states for an item."""
    for box in item.properties:
        if box.kind == b"ispe":
            width, height = struct.unpack_from(">II", data, box.start + 4)
            return width, height
    raise ValueError("the AVIF file has no image size")


def _orientation(data: bytes, item: _Item) -> int:
    """EXIF orientation of a picture that is turned, and then mirrored."""
    values = {box.kind: data[box.start] for box in item.properties if box.kind in (b"irot", b"imir")}
    mirror = values[b"imir"] & 1 if b"imir" in values else None
    return _TURNS[mirror][values.get(b"irot", 0) & 3]


def _main(data: bytes, meta: dict[bytes, Box]) -> int:
    """Number of the main item."""
    start = meta[b"pitm"].start if b"pitm" in meta else len(data)
    (number,) = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)
    return int(number)


def _items(data: bytes, meta: dict[bytes, Box]) -> dict[int, _Item]:
    """All items that have data, by number."""
    items: dict[int, _Item] = {}
    if not {b"iloc", b"iinf", b"iprp"} <= meta.keys():
        raise ValueError("the AVIF file has no picture")
    _read_places(data, meta, items)
    box = meta[b"iinf"]
    for entry in boxes(data, box.start + (8 if data[box.start] else 6), box.end):
        wide = data[entry.start] >= 3
        (number,) = struct.unpack_from(">I" if wide else ">H", data, entry.start + 4)
        if number in items:
            items[number].kind = data[entry.start + 10 :][:4] if wide else data[entry.start + 8 :][:4]
    _read_properties(data, meta, items)
    return items


def _read_places(data: bytes, meta: dict[bytes, Box], items: dict[int, _Item]) -> None:
    """Add the items with the places of their data (iloc)."""
    at = meta[b"iloc"].start
    version, sizes = data[at], struct.unpack_from(">H", data, at + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    number_size = 4 if version == 2 else 2
    at, extents = at + 6, 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise struct.error("the places of the items are truncated")
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(min(read(number_size), MAX_BOXES)):
        item = items.setdefault(read(number_size), _Item())
        within = meta.get(b"idat") if version and read(2) & 15 == 1 else None
        read(2)
        base = read(base_size) + (within.start if within else 0)
        for _ in range(read(2)):
            extents += 1
            if extents > MAX_BOXES:
                raise UnsupportedImageError(f"an AVIF file of more than {MAX_BOXES} parts")
            read(index_size)
            start = base + read(offset_size)
            length = read(length_size)
            item.extents.append((start, start + length if length else len(data)))


def _read_properties(data: bytes, meta: dict[bytes, Box], items: dict[int, _Item]) -> None:
    """Add the properties of the items (ipco, ipma)."""
    groups = list(boxes(data, meta[b"iprp"].start, meta[b"iprp"].end))
    found = [box for group in groups if group.kind == b"ipco" for box in boxes(data, group.start, group.end)]
    for group in groups:
        if group.kind != b"ipma":
            continue
        number_format, wide = ">I" if data[group.start] else ">H", data[group.start + 3] & 1
        (count,) = struct.unpack_from(">I", data, group.start + 4)
        at = group.start + 8
        for _ in range(min(count, MAX_BOXES)):
            (number,) = struct.unpack_from(number_format, data, at)
            at += struct.calcsize(number_format)
            associations = struct.unpack_from(f">{data[at]}{'H' if wide else 'B'}", data, at + 1)
            at += 1 + len(associations) * (2 if wide else 1)
            indices = [value & (0x7FFF if wide else 0x7F) for value in associations]
            if number in items:
                items[number].properties += [found[i - 1] for i in indices if 1 <= i <= len(found)]


def _references(data: bytes, meta: dict[bytes, Box]) -> dict[tuple[bytes, int], list[int]]:
    """Numbers of the items to which an item refers, by kind of reference and number."""
    result: dict[tuple[bytes, int], list[int]] = {}
    if b"iref" not in meta:
        return result
    box = meta[b"iref"]
    letter = "I" if data[box.start] else "H"
    for entry in boxes(data, box.start + 4, box.end):
        source, count = struct.unpack_from(f">{letter}H", data, entry.start)
        to = struct.unpack_from(f">{count}{letter}", data, entry.start + struct.calcsize(f">{letter}H"))
        result.setdefault((entry.kind, source), []).extend(to)
    return result


def _track_sizes(data: bytes, top: dict[bytes, Box]) -> list[tuple[int, int]]:
    """Sizes in the first data of each track of an animation, which is decoded instead of the main item."""
    sizes: list[tuple[int, int]] = []
    if b"moov" not in top:
        return sizes
    at, end = top[b"moov"].start, top[b"moov"].end
    for kind, place in ((b"stco", ">I"), (b"co64", ">Q")):
        found = data.find(kind, at, end)
        while found >= 0:
            (start,) = struct.unpack_from(place, data, found + 12)
            sizes += _sequence_sizes(data[start : start + (1 << 16)])
            found = data.find(kind, found + 4, end)
    return sizes


def _sequence_sizes(content: bytes) -> list[tuple[int, int]]:
    """The size in each sequence header of AV1 data."""
    sizes, at, units = [], 0, 0
    while at < len(content):
        head, units = content[at], units + 1
        if units > MAX_UNITS:
            raise UnsupportedImageError(f"an AVIF file with more than {MAX_UNITS} units of AV1 data in an item")
        at += 2 if head & 4 else 1
        length = len(content) - at
        if head & 2:
            length, shift = 0, 0
            while True:
                length |= (content[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if content[at - 1] < 0x80 or shift > 56:
                    break
        if head >> 3 & 15 == _SEQUENCE:
            sizes.append(_sequence_size(content[at : at + min(length, 256)]))
        at += length
    return sizes


def _sequence_size(header: bytes) -> tuple[int, int]:
    """Width and height in a sequence header."""
    bits, at = int.from_bytes(header, "big"), 8 * len(header)

    def read(count: int) -> int:
        nonlocal at
        at -= count
        if at < 0:
            raise ValueError("the AV1 data are truncated")
        return bits >> at & (1 << count) - 1

    read(4)
    if read(1):  # of one picture
        read(5)
    else:
        delay = 0
        if read(1):  # timing
            read(64)
            if read(1):
                zeros = 0
                while not read(1):
                    zeros += 1
                read(zeros)
            if read(1):  # of a decoder
                delay = read(5) + 1
                read(42)
        shown = read(1)
        for _ in range(read(5) + 1):  # operating points
            read(12)
            if read(5) > 7:
                read(1)
            if delay and read(1):
                read(2 * delay + 1)
            if shown and read(1):
                read(4)
    across, down = read(4) + 1, read(4) + 1
    return read(across) + 1, read(down) + 1
