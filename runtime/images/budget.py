"""The memory of all decoders at once, in bytes: a photo waits until there is room for it.

A limit of pixels bounds no memory: each thread may decode a photo of its own, and a pixel takes 3 to 30 bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .. import defaults
from .header_fields import Header

_RESULT = 6  # bytes a pixel: the picture, and its copy in another order or size
# Bytes a pixel of a decoder itself, besides the picture; measured with OpenCV 5.0.
_WORK = {"jpeg": 0, "png": 0, "bmp": 1, "webp": 6, "tiff": 0, "jp2": 6, "avif": 14}


def decode_bytes(header: Header, reduction: int) -> int:
    """Upper bound of the memory that decoding takes, bytes.

    Args:
        header: the header of the file.
        reduction: how many times smaller the decoder of a JPEG makes the picture: 1, 2, 4 or 8.
    """
    width, height = header.squared()
    pixels = max(header.width * header.height, width * height)
    if header.kind == "jpeg":
        result = _RESULT + (header.channels == 4)  # the inks besides the colours
        if header.doubtful:  # it is decoded in full size, twice, to see whether it is whole
            return round(pixels * (2 * result + header.coefficients))
        return round(pixels * (result / reduction**2 + header.coefficients))
    channels = 4 if header.alpha else max(3, header.channels)
    deep = header.depth > 8 or header.alpha
    stored = channels * max(1, header.depth / 8) if deep else 0  # a second array, which becomes the picture
    if header.alpha and header.depth > 8:
        stored += header.depth / 8
    if header.kind == "jp2":
        stored += 4 * header.channels  # its decoder works with 32 bits
    return round(pixels * (_RESULT + stored + _WORK[header.kind]) + header.block_pixels * 4 * max(1, header.depth / 8))


class ByteBudget:
    """Bytes that several threads share. Who comes first is served first, so that a large photo is not passed over.

    Attributes:
        total: bytes in all.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, nbytes: int) -> Iterator[None]:
        """Hold bytes for the time of the block; waits until they are free.

        Args:
            nbytes: at most `total`.
        """
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


DECODERS = ByteBudget(defaults.DECODE_BYTES)  # of all threads of this process
