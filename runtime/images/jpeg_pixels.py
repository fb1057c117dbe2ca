"""Decode a JPEG with a decoder that says what is wrong with it.

A decoder of JPEGs fills missing pixels with grey, goes on and warns. OpenCV prints the warning on stderr, without the
photo that it is about. simplejpeg is the same libjpeg-turbo with the same pixels, and hands the first warning to its
caller. So a photo that decodes without a warning costs nothing more, and each warning belongs to one photo.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jpeg_header import scan_ends
from .jpeg_whole import junk

logger = logging.getLogger(__name__)

# Warnings about other things than pixels, and a kind that is not decoded here. All others mean damage.
_HARMLESS = re.compile(
    "Unknown Adobe|unknown JFIF|bad ICC|Invalid SOS|Inconsistent progression|Could not determine subsampling"
)
_SURPLUS = re.compile(r"(\d+) extraneous bytes")
# Webcams leave up to 14 bytes before a marker, and cameras pad to 8 or 16. Where pixels were overwritten, half of the
# files have tens to thousands of bytes left.
_LEFTOVER = 16
_TEXT = b"\t\n\r" + bytes(range(0x20, 0x7F))


def decode_jpeg(data: bytes, size: tuple[int, int], reduction: int, channel_order: str) -> NDArray[np.uint8] | None:
    """All pixels of a JPEG, as stored.

    Args:
        data: the file, with its end marker.
        size: height and width by its header, pixels.
        reduction: 1, 2, 4 or 8.
        channel_order: "rgb" or "bgr".
    Returns:
        (H, W, 3) uint8; None for a kind that this decoder does not take.
    Raises:
        ValueError: pixels are missing or damaged.
    """
    height, width = (-(-side // reduction) if reduction > 1 else 0 for side in size)
    options = {"colorspace": channel_order, "min_height": height, "min_width": width}
    warning, image = _decode(data, strict=True, **options)
    if warning:
        _judge(warning, data)
        _, image = _decode(data, strict=False, **options)
    return image


def check_pixels(data: bytes) -> None:
    """Check that no pixels of a JPEG are missing, where another decoder makes the picture.

    Args:
        data: the file, with its end marker.
    Raises:
        ValueError: pixels are missing or damaged.
    """
    # The cheapest picture that takes all image data: 1/8 of the size, grey.
    warning, _ = _decode(data, strict=True, colorspace="gray", min_height=1, min_width=1)
    if warning:
        _judge(warning, data)


def _judge(warning: str, data: bytes) -> None:
    """Find out what the first warning about a file means: damage, or something harmless.

    Raises:
        ValueError: pixels are missing or damaged.
    """
    surplus = _SURPLUS.search(warning)
    if surplus is not None:
        harmless = int(surplus[1]) <= _LEFTOVER or _is_padding(data, int(surplus[1]))
    else:
        harmless = _HARMLESS.search(warning) is not None
    logger.debug("a decoder: %s", warning)
    if not harmless or _ends_early(data):  # a harmless warning hides the later ones
        raise ValueError(f"image data are missing or damaged: {warning.removeprefix('Corrupt JPEG data: ')}")


def _is_padding(data: bytes, count: int) -> bool:
    """Whether a scan ends in one byte again and again, or in text, and the decoder skipped all of it, not only a part.

    Args:
        data: the file.
        count: how many bytes the decoder skipped.
    """
    for start, end in scan_ends(data):
        scan = data[start:end].rstrip(b"\xff")
        for padding in (scan[-1:], _TEXT):
            repeated = len(scan) - len(scan.rstrip(padding))
            if count <= repeated <= count + _LEFTOVER:
                return True
    return False


def _ends_early(data: bytes) -> bool:
    """Whether the picture changes with other bytes behind the data of each scan: then the decoder missed some."""
    import cv2

    ends = [start + len(data[start:end].rstrip(b"\xff")) for start, end in scan_ends(data)]  # without fill bytes
    parts = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    small = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    pictures: list[Any] = [cv2.imdecode(np.frombuffer(file, np.uint8), small) for file in (data, junk(64).join(parts))]
    return all(picture is not None for picture in pictures) and not np.array_equal(*pictures)


def _decode(data: bytes, **options: Any) -> tuple[str, NDArray[np.uint8] | None]:
    """The first warning, and the picture; None if there is a warning and it is asked for, or for an error."""
    import simplejpeg

    try:
        return "", simplejpeg.decode_jpeg(data, **options)
    except ValueError as err:
        return str(err), None
