"""Make AVIF files that Pillow does not write: grids, and containers that contradict their data."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from tests.support import encoded_images as make


def box(kind: bytes, content: bytes) -> bytes:
    """One box."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, content: bytes, flags: int = 0) -> bytes:
    """One box with a version, 0, and flags."""
    return box(kind, struct.pack(">I", flags) + content)


def state_size(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its container."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def grid_avif(
    tile: NDArray[np.uint8], rows: int, columns: int, *, stated: tuple[int, int] | None = None, turn: bytes = b""
) -> bytes:
    """A grid of the same tile again and again.

    Args:
        tile: (H, W, 3) uint8.
        rows, columns: tiles of the grid.
        stated: height and width that the container states for the picture; None for the true ones.
        turn: boxes of more properties of the picture.
    """
    one = make.encode(tile, "AVIF", quality=95)
    payload = one[one.index(b"mdat") + 4 :]
    settings = one[one.index(b"av1C") + 4 :][:4]
    height, width = tile.shape[0] * rows, tile.shape[1] * columns
    count = rows * columns
    stated_height, stated_width = stated or (height, width)
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    properties = [
        full(b"ispe", struct.pack(">II", stated_width, stated_height)),
        full(b"ispe", struct.pack(">II", tile.shape[1], tile.shape[0])),
        full(b"pixi", b"\3\x08\x08\x08"),
        box(b"av1C", settings),
    ]
    turns = []
    while turn:
        (length,) = struct.unpack_from(">I", turn)
        turns.append(turn[:length])
        turn = turn[length:]
    main = [1, 3, *(0x80 | 5 + i for i in range(len(turns)))]
    associations = [struct.pack(">HB", 1, len(main)) + bytes(main)]
    associations += [struct.pack(">HB", 2 + i, 3) + bytes([2, 3, 0x84]) for i in range(count)]
    parts = box(
        b"iprp",
        box(b"ipco", b"".join(properties + turns))
        + full(b"ipma", struct.pack(">I", count + 1) + b"".join(associations)),
    )
    kinds = [(1, b"grid", 0), *((2 + i, b"av01", 1) for i in range(count))]
    infe = b"".join(
        box(b"infe", struct.pack(">BBHHH4s", 2, 0, hidden, number, 0, kind) + b"\0") for number, kind, hidden in kinds
    )
    reference = full(b"iref", box(b"dimg", struct.pack(f">HH{count}H", 1, count, *range(2, 2 + count))))

    def head(start: int) -> bytes:
        places = struct.pack(">HHHHII", 1, 0, 0, 1, start, len(grid))
        for i in range(count):
            places += struct.pack(">HHHHII", 2 + i, 0, 0, 1, start + len(grid), len(payload))
        iloc = box(b"iloc", struct.pack(">BBHHH", 1, 0, 0, 0x4400, count + 1) + places)
        meta = full(b"hdlr", b"\0\0\0\0pict" + bytes(13)) + full(b"pitm", struct.pack(">H", 1)) + iloc
        meta += full(b"iinf", struct.pack(">H", count + 1) + infe) + reference + parts
        return box(b"ftyp", b"avif\0\0\0\0avifmif1miafMA1B") + full(b"meta", meta)

    return head(len(head(0)) + 8) + box(b"mdat", grid + payload)
