"""One batch on the GPU: its buffers, its stream, its execution context, and the events that say how far it is."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cuda.driver import Driver
from ...cuda.resources import DeviceBuffer, Event, PinnedBuffer, Stream
from ...errors import EngineError
from ...graphs.tensors import INPUT
from ..engine import EngineInfo
from ..inputs import output_of, output_shape, sides_of


class Slot:
    """Crops in, unit vectors out, one batch at a time; several slots overlap. Owned by `with`.

    Fill the places, `start`, `finish`: only then may the places be filled again. Nothing is waited for but the event
    at the end of the batch. Methods are for one thread at a time, with the driver current.

    Attributes:
        stream: what fills the places is given to it, or has ended.
        places: what the engine reads: crops (S, S, 3) uint8, one after another.
    """

    def __init__(self, driver: Driver, context: Any, info: EngineInfo) -> None:
        """Reserve everything for the largest batch of the profile.

        Args:
            driver: current on this thread.
            context: TensorRT's execution context, used by nobody else.
            info: of the engine.
        Raises:
            OutOfMemoryError: the GPU, or page-locked memory, has no room.
        """
        self._context, self._info = context, info
        self._sides: tuple[int, ...] = (sides_of(info)[-1],) * 2
        largest = info.profile[2]
        pictures, answers = largest * picture_bytes(info), largest * answer_bytes(info)
        with ExitStack() as stack:
            own = stack.enter_context
            self.places, self._answers = own(DeviceBuffer(driver, pictures)), own(DeviceBuffer(driver, answers))
            self._staging, self._landed = own(PinnedBuffer(driver, pictures)), own(PinnedBuffer(driver, answers))
            self._began, self._ended = own(Event(driver, timing=True)), own(Event(driver, timing=True))
            self._fetched = own(Event(driver))
            self.stream = own(Stream(driver))  # last in, first out: it is waited for before the buffers go
            context.set_tensor_address(INPUT, self.places.address)
            context.set_tensor_address(output_of(info), self._answers.address)
            self._stack = stack.pop_all()

    def fill(self, place: int, crops: NDArray[np.uint8]) -> None:
        """Send crops (m, S, S, 3) uint8 to the places from `place` on; a detector's batch is of one size."""
        self._sides = crops.shape[1:3]
        staged = self._staging.view((place + len(crops), *crops.shape[1:]), np.uint8)[place:]
        staged[:] = crops
        self.stream.upload(staged, self.places, place * staged[0].nbytes)

    def take(self, address: int, shape: tuple[int, int, int, int]) -> None:
        """Fill the first places with pictures (m, H, W, 3) uint8 on the device, which stay there until `finish`."""
        self._sides = shape[1:3]
        self.stream.copy(address, math.prod(shape), self.places)

    def fetch(self, count: int) -> None:
        """Send the first crops back, once they are there: for what was made on the device, before `start`."""
        self.stream.download(self.places, self._crops(count))
        self.stream.record(self._fetched)

    def fetched(self, count: int) -> NDArray[np.uint8]:
        """(count, S, S, 3) uint8: wait for what `fetch` sends, not for the batch; valid until the next `fill`."""
        self._fetched.synchronize()
        return self._crops(count)

    def start(self, count: int) -> None:
        """Embed the first `count` places; those up to the next usual batch size are embedded too, and not read.

        Raises:
            EngineError: TensorRT refused.
        """
        size = usual_size(count, self._info.profile)
        self.stream.record(self._began)
        shaped = self._context.set_input_shape(INPUT, (size, *self._sides, 3))
        if not (shaped and self._context.execute_async_v3(self.stream.address)):
            raise EngineError(f"TensorRT failed on a batch of {size} of {self._info.model}")
        self.stream.download(self._answers, self._view(count))
        self.stream.record(self._ended)

    def finish(self, count: int) -> tuple[NDArray[np.float32], float]:
        """Wait for the batch that was started.

        Returns:
            (count, D) float32, unit rows (a detector's: (count, P, V)), a new array; and the seconds that it took the
            GPU.
        """
        self._ended.synchronize()
        return self._view(count).copy(), self._ended.seconds_since(self._began)

    def _crops(self, count: int) -> NDArray[np.uint8]:
        return self._staging.view((count, *self._sides, 3), np.uint8)

    def _view(self, count: int) -> NDArray[np.float32]:
        return self._landed.view((count, *output_shape(self._info, *self._sides)), np.float32)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait for what is under way, then let everything go."""
        try:
            self._stack.close()
        finally:
            self._context = None


def usual_size(count: int, profile: tuple[int, int, int]) -> int:
    """The batch size that `count` crops run at: few sizes, since TensorRT-RTX compiles kernels for each that it meets.

    The profile's own where that is less than twice as many; else the next power of two.
    """
    low, best, high = profile
    if best < 2 * count and count <= best:
        return best
    return min(max(low, 1 << (count - 1).bit_length()), high)


def slot_bytes(info: EngineInfo) -> int:
    """Device memory of one slot, without its execution context's."""
    return info.profile[2] * (picture_bytes(info) + answer_bytes(info))


def picture_bytes(info: EngineInfo) -> int:
    """Of the largest picture."""
    return 3 * sides_of(info)[-1] ** 2


def answer_bytes(info: EngineInfo) -> int:
    """Of the engine's answer to it."""
    return 4 * math.prod(output_shape(info, sides_of(info)[-1], sides_of(info)[-1]))
