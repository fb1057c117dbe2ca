"""Fill a slot with crops of photos or faces on the device; and a pool of resources for threads."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..cuda.driver import Driver
from ..cuda.kernels import IMAGE, Kernels
from ..cuda.resources import DeviceBuffer, PinnedBuffer
from ..engines.tensorrt.slot import Slot

T = TypeVar("T")

_TRANSFORM_BYTES = 24  # (2, 3) float32


class Shrink:
    """Resizes photos into the places of a slot, one slot at a time.

    Use it as a context manager, with the driver current.

    Args:
        driver: the driver of the slots.
        kernels: the kernels of the driver; shared.
        size: side of the crop, pixels.
        capacity: places of a slot.
    Raises:
        OutOfMemoryError: the GPU, or page-locked memory, is full.
    """

    def __init__(self, driver: Driver, kernels: Kernels, *, size: int, capacity: int) -> None:
        self._kernels, self._size = kernels, size
        with ExitStack() as stack:
            nbytes = capacity * IMAGE.itemsize
            self._images = stack.enter_context(DeviceBuffer(driver, nbytes))
            self._staged = stack.enter_context(PinnedBuffer(driver, nbytes)).view((capacity,), IMAGE)
            self._stack = stack.pop_all()

    def __call__(self, slot: Slot, place: int, images: NDArray[np.void]) -> None:
        """Fill the places of a slot from `place` on, without waiting. Fill each place once per batch.

        Args:
            slot: the slot to fill.
            place: the first place.
            images: (m,) IMAGE, one per photo. The photos must stay in memory until the stream has read them.
        """
        staged = self._staged[place : place + len(images)]
        staged[:] = images
        slot.stream.upload(staged, self._images, place * IMAGE.itemsize)
        self._kernels.preprocess_bytes(
            slot.stream, self._images, slot.places, first=place, count=len(images), size=self._size
        )

    def __enter__(self) -> Shrink:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


class Warp:
    """Warps faces into the places of a slot, one slot at a time.

    Use it as a context manager, with the driver current.

    Args:
        driver: the driver of the slots.
        kernels: the kernels of the driver; shared.
        size: side of the crop, pixels.
        reverse: whether to reverse the channel order.
        capacity: maximum number of faces at once.
    Raises:
        OutOfMemoryError: the GPU, or page-locked memory, is full.
    """

    def __init__(self, driver: Driver, kernels: Kernels, *, size: int, reverse: bool, capacity: int) -> None:
        self._kernels, self._size, self._reverse = kernels, size, reverse
        with ExitStack() as stack:
            own = stack.enter_context
            images, transforms = capacity * IMAGE.itemsize, capacity * _TRANSFORM_BYTES
            self._images, self._transforms = own(DeviceBuffer(driver, images)), own(DeviceBuffer(driver, transforms))
            self._staged = own(PinnedBuffer(driver, images)), own(PinnedBuffer(driver, transforms))
            self._stack = stack.pop_all()

    def __call__(self, slot: Slot, images: NDArray[np.void], transforms: NDArray[np.float32]) -> None:
        """Fill the first places of a slot, without waiting. Call it once per batch.

        Args:
            slot: the slot whose first m places are filled.
            images: (m,) IMAGE, the photo of each face. The photos must stay in memory until the slot has finished.
            transforms: (m, 2, 3) float32, crop pixel -> photo pixel.
        """
        for array, staged, buffer in zip(
            (images, transforms), self._staged, (self._images, self._transforms), strict=True
        ):
            pinned = staged.view(array.shape, array.dtype)
            pinned[:] = array
            slot.stream.upload(pinned, buffer)
        self._kernels.align_bytes(
            slot.stream,
            self._images,
            self._transforms,
            slot.places,
            count=len(images),
            size=self._size,
            reverse=self._reverse,
        )

    def __enter__(self) -> Warp:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


class Pool(Generic[T]):
    """First-in, first-out pool of items, each for one thread at a time. `take()` blocks until an item is free."""

    def __init__(self, items: Sequence[T]) -> None:
        self._free: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._count = len(items)
        for item in items:
            self._free.put(item)

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def take(self) -> Iterator[T]:
        """Take an item, and return it at the end of the `with` block."""
        item = self._free.get()
        try:
            yield item
        finally:
            self._free.put(item)
