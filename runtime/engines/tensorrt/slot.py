"""One batch on the GPU: its buffers, stream, execution context and events."""

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
    """Runs one batch at a time: crops in, unit vectors out. Several slots overlap. Use it as a context manager.

    Fill the places, call `start`, then `finish`; fill the places again only after that. Only the end of the batch is
    waited for. One thread at a time may call the methods, with the driver current.

    Attributes:
        stream: fill the places on this stream, or before `start`.
        places: input of the engine: crops (S, S, 3) uint8, contiguous.
    """

    def __init__(self, driver: Driver, context: Any, info: EngineInfo) -> None:
        """Allocate memory for the largest batch of the profile.

        Args:
            driver: the driver, current on this thread.
            context: an execution context of TensorRT for this slot alone.
            info: facts of the engine.
        Raises:
            OutOfMemoryError: the GPU, or page-locked memory, is full.
        """
        self._context, self._info = context, info
        self._sides: tuple[int, ...] = (sides_of(info)[-1],) * 2
        largest = info.profile[2]
        inputs, outputs = largest * input_bytes(info), largest * output_bytes(info)
        with ExitStack() as stack:
            own = stack.enter_context
            self.places, self._outputs = own(DeviceBuffer(driver, inputs)), own(DeviceBuffer(driver, outputs))
            self._host_inputs, self._host_outputs = (
                own(PinnedBuffer(driver, inputs)),
                own(PinnedBuffer(driver, outputs)),
            )
            self._started, self._finished = own(Event(driver, timing=True)), own(Event(driver, timing=True))
            self._fetched = own(Event(driver))
            self.stream = own(Stream(driver))  # closed first: it is waited for before the buffers are freed
            for name, buffer in ((INPUT, self.places), (output_of(info), self._outputs)):
                if not context.set_tensor_address(name, buffer.address):
                    raise EngineError(f"TensorRT does not take the memory of {name!r} of {info.model}")
            self._stack = stack.pop_all()

    def fill(self, place: int, crops: NDArray[np.uint8]) -> None:
        """Copy crops (m, S, S, 3) uint8 to the places from `place` on. A batch of a detector has one size."""
        self._sides = crops.shape[1:3]
        staged = self._host_inputs.view((place + len(crops), *crops.shape[1:]), np.uint8)[place:]
        staged[:] = crops
        self.stream.upload(staged, self.places, place * staged[0].nbytes)

    def take(self, address: int, shape: tuple[int, int, int, int]) -> None:
        """Copy images (m, H, W, 3) uint8 on the device to the first places. They must stay until `finish`."""
        self._sides = shape[1:3]
        self.stream.copy(address, math.prod(shape), self.places)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """(nbytes,) uint8: copy bytes on the device to the host by way of the places, and wait for them.

        Valid until the next `fill`. Call it before the places are filled.
        """
        host = self._host_inputs.view((nbytes,), np.uint8)
        self.stream.copy(address, nbytes, self.places)
        self.stream.download(self.places, host)
        self.stream.record(self._fetched)
        self._fetched.synchronize()
        return host

    def fetch(self, count: int) -> None:
        """Start copying the first crops to the host, if they were made on the device. Call it before `start`."""
        self.stream.download(self.places, self._crops(count))
        self.stream.record(self._fetched)

    def fetched(self, count: int) -> NDArray[np.uint8]:
        """(count, S, S, 3) uint8: wait for the copy of `fetch`, not for the batch. Valid until the next `fill`."""
        self._fetched.synchronize()
        return self._crops(count)

    def start(self, count: int, size: int = 0) -> None:
        """Embed the first `count` places.

        Args:
            count: places that are filled.
            size: the batch is padded to this size, and the extra rows are not read; 0 for that of `padded_size`.
                TensorRT chooses its kernels by the size, and two kernels round differently.
        Raises:
            EngineError: TensorRT failed.
        """
        size = max(size, count, self._info.profile[0]) if size else padded_size(count, self._info.profile)
        self.stream.record(self._started)
        accepted = self._context.set_input_shape(INPUT, (size, *self._sides, 3))
        if not (accepted and self._context.execute_async_v3(self.stream.address)):
            raise EngineError(f"TensorRT failed on a batch of {size} of {self._info.model}")
        self.stream.download(self._outputs, self._view(count))
        self.stream.record(self._finished)

    def finish(self, count: int) -> tuple[NDArray[np.float32], float]:
        """Wait for the started batch.

        Returns:
            (count, D) float32, unit rows, or (count, P, V) for a detector; a new array. And the seconds on the GPU.
        """
        self._finished.synchronize()
        return self._view(count).copy(), self._finished.seconds_since(self._started)

    def run_empty(self, count: int, side: int) -> None:
        """Run a batch of black images of a side and wait for it. It compiles what the first such batch needs.

        Raises:
            EngineError, OutOfMemoryError: TensorRT failed.
        """
        self.fill(0, np.zeros((count, side, side, 3), np.uint8))
        self.start(count, count)
        self.finish(count)

    def _crops(self, count: int) -> NDArray[np.uint8]:
        return self._host_inputs.view((count, *self._sides, 3), np.uint8)

    def _view(self, count: int) -> NDArray[np.float32]:
        return self._host_outputs.view((count, *output_shape(self._info, *self._sides)), np.float32)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait for the running batch, then free everything."""
        try:
            self._stack.__exit__(*exc)  # type: ignore[arg-type]
        finally:
            self._context = None


def padded_size(count: int, profile: tuple[int, int, int]) -> int:
    """The batch size for `count` crops. There are few sizes, because TensorRT-RTX compiles kernels for each.

    It is the optimum of the profile if that is less than twice `count`, else the next power of two.
    """
    low, best, high = profile
    if best < 2 * count and count <= best:
        return best
    return min(max(low, 1 << (count - 1).bit_length()), high)


def slot_bytes(info: EngineInfo) -> int:
    """Device memory of one slot without its execution context, bytes."""
    return info.profile[2] * (input_bytes(info) + output_bytes(info))


def input_bytes(info: EngineInfo) -> int:
    """Size of the largest image, bytes."""
    return 3 * sides_of(info)[-1] ** 2


def output_bytes(info: EngineInfo) -> int:
    """Size of the output for the largest image, bytes."""
    return 4 * math.prod(output_shape(info, sides_of(info)[-1], sides_of(info)[-1]))
