"""Read the directories of a TIFF file or an EXIF block, which is one: classic and BigTIFF.

Sources: TIFF 6.0; BigTIFF design (libtiff.gitlab.io/libtiff/specification/bigtiff.html); EXIF 2.32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_PAGES = 10_000
MAX_ENTRIES = 200_000  # of all directories together
ORIENTATION = 274

_FORMATS = {1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 10: "i", 11: "f", 12: "d", 16: "Q", 18: "Q"}
_RATIONALS = (5, 10)


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory: for a TIFF file, one page. Values are read when they are asked for.

    Attributes:
        offset: where it begins in the file, bytes.
        data: the file.
        entries: format, number and place of the values of each tag.
        end: where the offset of the next directory is.
    """

    offset: int
    data: bytes
    entries: dict[int, tuple[str, int, int]]
    end: int

    def numbers(self, tag: int, most: int | None = None) -> list[float]:
        """The values of a tag, at most `most`; a rational is two values. Empty if it is missing or cut off."""
        layout, count, at = self.entries.get(tag, ("<B", 0, 0))
        count = count if most is None else min(count, most)
        if not count or at + count * struct.calcsize(layout) > len(self.data):
            return []
        return list(struct.unpack_from(f"{layout[0]}{count}{layout[1]}", self.data, at))

    def number(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        values = self.numbers(tag, 1)
        return int(values[0]) if values else default

    def rational(self, tag: int) -> float:
        """The value of a rational tag; 0 if it is missing or no number."""
        values = self.numbers(tag, 2)
        return values[0] / values[1] if len(values) == 2 and values[1] else 0.0


def is_big(data: bytes) -> bool:
    """Whether a TIFF file is a BigTIFF."""
    return data[2:4] in (b"+\0", b"\0+")


def read_directories(data: bytes, most: int = MAX_PAGES) -> list[Directory]:
    """Read the directories of a file, in their order, up to a limit or to the first that is damaged.

    Raises:
        struct.error: the first directory is truncated.
    """
    order, big = "<" if data[:2] == b"II" else ">", is_big(data)
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    directories: list[Directory] = []
    seen, entries = set[int](), 0
    while offset and offset not in seen and len(directories) < most and entries < MAX_ENTRIES:
        seen.add(offset)
        try:
            directory, offset = _read_directory(data, offset, order, big)
        except struct.error:
            if not directories:
                raise
            break
        directories.append(directory)
        entries += len(directory.entries)
    return directories


def first_directory_at(data: bytes, offset: int) -> bytes:
    """The file with another first directory."""
    order, big = "<" if data[:2] == b"II" else ">", is_big(data)
    packed = struct.pack(order + ("Q" if big else "I"), offset)
    at = 8 if big else 4
    return data[:at] + packed + data[at + len(packed) :]


def only_directory(directory: Directory) -> bytes:
    """The file with this directory as its first and last."""
    room = 8 if is_big(directory.data) else 4
    file = bytearray(first_directory_at(directory.data, directory.offset))
    file[directory.end : directory.end + room] = bytes(len(file[directory.end : directory.end + room]))
    return bytes(file)


def exif_orientation(block: bytes) -> int:
    """Orientation of an EXIF block, 1 to 8; 1 if it is missing or invalid."""
    try:
        directories = read_directories(block, most=1)
    except struct.error:
        return 1
    value = directories[0].number(ORIENTATION, 1) if directories else 1
    return value if 1 <= value <= 8 else 1


def _read_directory(data: bytes, offset: int, order: str, big: bool) -> tuple[Directory, int]:
    """A directory, and the offset of the next. Of a tag that is there twice, libtiff and this take the first."""
    counter, entry, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    (count,) = struct.unpack_from(order + counter, data, offset)
    at, size, room = offset + struct.calcsize(order + counter), (20 if big else 12), (8 if big else 4)
    end = at + count * size
    if end > len(data) or count > 65_535:
        raise struct.error("the directory is longer than the file")
    entries: dict[int, tuple[str, int, int]] = {}
    for start in range(at, end, size):
        tag, kind, number = struct.unpack_from(order + entry, data, start)
        if kind not in _FORMATS or tag in entries:
            continue
        number *= 2 if kind in _RATIONALS else 1
        where, layout = start + size - room, order + _FORMATS[kind]
        if number * struct.calcsize(layout) > room:
            (where,) = struct.unpack_from(order + pointer, data, where)
        entries[tag] = layout, number, where
    following = struct.unpack_from(order + pointer, data, end)[0] if end + room <= len(data) else 0
    return Directory(offset, data, entries, end), following
