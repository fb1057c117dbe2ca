"""Make TIFF files of several pages."""

from __future__ import annotations

import io

import numpy as np
import tifffile
from numpy.typing import NDArray


def pages_tiff(*pages: NDArray[np.uint8], previews: bool = False) -> bytes:
    """A TIFF file of RGB pages, (H, W, 3) uint8 each.

    Args:
        pages: the pictures.
        previews: whether each page has a marked preview behind it.
    """
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for pixels in pages:
            writer.write(pixels, photometric="rgb", compression="zlib", metadata=None)
            if previews:
                small = np.ascontiguousarray(pixels[::4, ::4])
                writer.write(small, photometric="rgb", subfiletype=1, metadata=None)
    return out.getvalue()


def damage_page(data: bytes, page: int) -> bytes:
    """The file with zeros instead of the image data of one page, counted from 0 with previews."""
    damaged = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for offset, count in zip(file.pages[page].dataoffsets, file.pages[page].databytecounts, strict=True):
            damaged[offset : offset + count] = bytes(count)
    return bytes(damaged)
