"""Check the places where HDF5 keeps text, before HDF5 reads them: it never returns from some damaged ones.

HDF5 stores text of any length in "global heaps": blocks of numbered pieces that follow one another. It walks through
a block by the sizes of the pieces, and a piece of size zero keeps it in place for ever. A bad sector or a power cut
leaves such zeros. This module follows the same sizes by itself.

Source: HDF5 File Format Specification 3.0, III.E (global heap) and IV.A.1 (object header, version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from .steady import read_at

_HEAP_HEADER, _PIECE_HEADER = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")
_HEADER, _MESSAGE = struct.Struct("<BxHII4x"), struct.Struct("<HHB3x")
_PLACE = struct.Struct("<IQI")  # of a text: its length, the address of its heap, the number of the piece
_CONTINUATION, _ATTRIBUTE, _ATTRIBUTE_INFO = 0x10, 0x0C, 0x15
_VARIABLE_LENGTH = 9  # class of a type
_MAX_TEXT_BYTES = 1 << 20  # an attribute or a path
_MAX_HEADER_BYTES = 1 << 22
_MAX_HEAP_BYTES = 1 << 26


def check_attribute_texts(item: Any) -> bool:
    """Check the heaps of all attributes of an open group or dataset.

    Returns:
        Whether they could be checked: facemill writes headers of version 1, and this module reads no other.
    Raises:
        ValueError: a heap is damaged.
    """
    import h5py

    disk = _Disk(item.file)
    try:
        heaps = _attribute_heaps(disk, int(h5py.h5o.get_info(item.id).addr))
    except struct.error:  # the header ends too early
        return False
    disk.check_heaps(heaps or ())
    return heaps is not None


def check_list_texts(dataset: Any) -> None:
    """Check the heaps of an open dataset of lists, one axis, stored in one piece.

    Raises:
        ValueError: a heap is damaged, or a list is longer than any that facemill writes.
    """
    disk, start = _Disk(dataset.file), dataset.id.get_offset()
    if start is not None:
        disk.check_heaps(_heaps_of(disk.read(start, _PLACE.size * len(dataset))))


class _Disk:
    """The bytes of an open file, as HDF5 reads them."""

    def __init__(self, file: Any) -> None:
        self._file, self._base = file, int(file.userblock_size)
        self._checked: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        if not 0 <= address < 1 << 62 or size > _MAX_HEAP_BYTES:
            raise ValueError(f"the address {address} or the size {size} is impossible")
        return read_at(self._file, address, size)

    def part(self, address: int, size: int) -> bytes:
        """Bytes at an address relative to HDF5's first byte."""
        return self.read(self._base + address, size)

    def check_heaps(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            if address not in self._checked and address:
                self._checked.add(address)
                self._check_heap(address)

    def _check_heap(self, address: int) -> None:
        """Follow the pieces of a heap to its end."""
        where = f"the text at byte {address} of the file is damaged"
        header = self.part(address, _HEAP_HEADER.size)
        if len(header) < _HEAP_HEADER.size or header[:4] != b"GCOL":
            raise ValueError(f"{where}: its block begins with {header[:4]!r}; expected: b'GCOL'")
        size = _HEAP_HEADER.unpack(header)[2]
        block = self.part(address, size) if size <= _MAX_HEAP_BYTES else b""
        if len(block) < size or size > _MAX_HEAP_BYTES:
            raise ValueError(f"{where}: its block claims {size} bytes, more than there are")
        at = _HEAP_HEADER.size
        while at + _PIECE_HEADER.size <= size:
            number, _, length = _PIECE_HEADER.unpack_from(block, at)
            step = (
                length if not number else _PIECE_HEADER.size + -(-length // 8) * 8
            )  # 0 is free space, header included
            if step < _PIECE_HEADER.size or at + step > size:
                raise ValueError(f"{where}: a piece of it has {length} bytes; expected: 16 to {size - at}")
            at += step


def _heaps_of(places: bytes) -> Iterator[int]:
    """The addresses of the heaps of stored places."""
    for length, address, _ in _PLACE.iter_unpack(places[: len(places) // _PLACE.size * _PLACE.size]):
        if length > _MAX_TEXT_BYTES:
            raise ValueError(f"a text claims {length:,} bytes; expected: at most {_MAX_TEXT_BYTES:,}")
        yield address


def _attribute_heaps(disk: _Disk, address: int) -> list[int] | None:
    """The addresses of the heaps of all attributes of the object at an address; None for an unknown description."""
    version, _, _, size = _HEADER.unpack(disk.part(address, _HEADER.size))
    if version != 1:
        return None
    heaps: list[int] = []
    parts, seen, total = [(address + _HEADER.size, size)], set(), 0
    while parts:
        start, size = parts.pop()
        total += size
        if start in seen or total > _MAX_HEADER_BYTES:
            raise ValueError(f"the header at byte {address} refers to itself, or has over {_MAX_HEADER_BYTES} bytes")
        seen.add(start)
        part, at = disk.part(start, size), 0
        while at + _MESSAGE.size <= len(part):
            kind, length, flags = _MESSAGE.unpack_from(part, at)
            content = part[at + _MESSAGE.size : at + _MESSAGE.size + length]
            at += _MESSAGE.size + length
            if kind == _CONTINUATION:
                parts.append(struct.unpack_from("<QQ", content))
            elif kind == _ATTRIBUTE_INFO or (kind == _ATTRIBUTE and flags & 2):  # kept elsewhere
                return None
            elif kind == _ATTRIBUTE:
                found = _text_heaps(content)
                if found is None:
                    return None
                heaps += found
    return heaps


def _text_heaps(message: bytes) -> list[int] | None:
    """The addresses of the heaps of an attribute, from its message; None for an unknown description."""
    version, flags, *sizes = struct.unpack_from("<BBHHH", message)
    if version not in (1, 2, 3) or (version > 1 and flags & 3):
        return None
    at = 9 if version == 3 else 8
    name, kind, space = (-(-size // 8) * 8 if version == 1 else size for size in sizes)
    if message[at + name : at + name + 1] and message[at + name] & 0x0F == _VARIABLE_LENGTH:
        return list(_heaps_of(message[at + name + kind + space :]))
    return []
