"""Compare what a GPU has decoded with the CPU's decode of the same photo, for one photo in a thousand.

Drivers are known that report a photo as decoded when the JPEG hardware has skipped it. What lies in memory then is
another person's photo, with a face and a vector of its own, and nothing else would show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..engines.tensorrt.slot import Slot
from ..errors import EngineError
from ..images.dali_photos import DevicePhoto
from ..images.decode import ImageError, Limits, decode_image, decode_photo
from ..text import printable

EVERY = 1000  # rows
_MAX_DIFFERENCE = 8.0  # grey levels, on average; other decoders and reductions differ by less than 2


def sampled(rows: NDArray[np.int64], indices: Sequence[int]) -> list[int]:
    """Positions in `indices` of the photos to compare, by their rows, so that a repeated run compares the same."""
    return [int(i) for i in np.flatnonzero(rows[np.asarray(indices, np.int64)] % EVERY == 0)]


def check_crop(
    slot: Slot, place: int, data: bytes, name: bytes, *, size: int, channel_order: str, limits: Limits
) -> None:
    """Compare a crop on the device with the CPU's. Call it before the batch is started.

    Args:
        slot: the slot that holds the crop.
        place: its place.
        data, name: the photo.
        size, channel_order, limits: see `decode_image`.
    Raises:
        EngineError: they are different pictures.
    """
    slot.fetch(place + 1)
    actual = slot.fetched(place + 1)[place]
    _compare(actual, lambda: decode_image(data, size=size, channel_order=channel_order, limits=limits), name)


def check_photo(
    slot: Slot, photo: DevicePhoto, data: bytes, name: bytes, *, long_side: int, channel_order: str, limits: Limits
) -> None:
    """Compare a photo on the device, or its first rows if it is large, with the CPU's.

    Args:
        slot: a slot whose places may be overwritten.
        photo: the photo on the device.
        data, name: the photo.
        long_side, channel_order, limits: see `decode_photo`.
    Raises:
        EngineError: they are different pictures.
    """
    height, width = photo.shape
    rows = min(height, slot.places.nbytes // (3 * width))
    actual = slot.read(photo.address, rows * width * 3).reshape(rows, width, 3)

    def expected() -> NDArray[np.uint8]:
        decoded = decode_photo(data, long_side=long_side, channel_order=channel_order, limits=limits)
        return decoded.pixels[:rows]

    _compare(actual, expected, name)


def _compare(actual: NDArray[np.uint8], decode: Callable[[], NDArray[np.uint8]], name: bytes) -> None:
    try:
        expected = decode()
        same_shape = actual.shape == expected.shape
        difference = float(np.abs(actual.astype(np.int16) - expected).mean()) if same_shape else 255.0
    except ImageError as err:
        detail = f"the CPU cannot read it ({err.detail}), and the GPU's decoder says that it has"
    else:
        if difference <= _MAX_DIFFERENCE:
            return
        detail = f"the pictures of the GPU's decoder and of the CPU's differ by {difference:.0f} grey levels on average"
    path = printable(name.decode("utf-8", "surrogateescape")) or "a photo without a name"
    raise EngineError(
        f"{path}: {detail}; expected: at most {_MAX_DIFFERENCE:.0f}. The GPU's decoder cannot be trusted on this "
        f"machine. Decode on the CPU with: --decoder opencv; and update the driver"
    )
