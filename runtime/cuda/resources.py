"""Streams, events and buffers as context managers, the same for every driver."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import ConfigError, EngineError
from .driver import Driver

_Self = TypeVar("_Self", bound="_Owned")


class _Owned:
    """A handle of the driver, released at the end of a `with` block."""

    def __init__(self, driver: Driver, handle: Any) -> None:
        self._driver = driver
        self._handle = handle

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle = None


class PinnedBuffer(_Owned):
    """Page-locked host memory, whose copies run in parallel with other work.

    Attributes:
        nbytes: its size.
    """

    def __init__(self, driver: Driver, nbytes: int) -> None:
        super().__init__(driver, driver.allocate_pinned(max(nbytes, 1)))
        self.nbytes = nbytes

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The first bytes as an array, which keeps the memory alive after the `with` block.

        Raises:
            ConfigError: the array is larger than the buffer.
        """
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > self.nbytes:
            raise ConfigError(f"an array of {nbytes} bytes does not fit a pinned buffer of {self.nbytes}")
        array: NDArray[Any] = self._handle[:nbytes].view(dtype).reshape(shape)
        return array


class DeviceBuffer(_Owned):
    """Device memory.

    Attributes:
        nbytes: its size; 0 after the `with` block.
    """

    def __init__(self, driver: Driver, nbytes: int) -> None:
        super().__init__(driver, driver.allocate(nbytes) if nbytes else None)
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        """Its address on the device; 0 if it is empty."""
        return 0 if self._handle is None else self._driver.address(self._handle)

    def __exit__(self, *exc: object) -> None:
        self._handle, self.nbytes = None, 0


class Event(_Owned):
    """A mark in a stream. With `timing`, the time between two events can be measured."""

    def __init__(self, driver: Driver, *, timing: bool = False) -> None:
        super().__init__(driver, driver.new_event(timing=timing))

    def synchronize(self) -> None:
        """Wait until the marked work is done."""
        self._driver.synchronize_event(self._handle)

    def seconds_since(self, earlier: Event) -> float:
        """Seconds on the GPU between two completed events with timing."""
        return self._driver.elapsed_s(earlier._handle, self._handle)


class Stream(_Owned):
    """Work that the GPU does in order. Leaving the `with` block waits for it, so that buffers may be freed."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, driver.new_stream())

    @property
    def address(self) -> int:
        """The cudaStream_t, for TensorRT, DALI and FAISS."""
        return self._driver.stream_address(self._handle)

    def upload(self, host: NDArray[Any], device: DeviceBuffer, offset: int = 0) -> None:
        """Copy an array to the device. It must not change before the copy is done.

        Args:
            host: a C-contiguous array. Outside pinned memory, the calling thread may wait.
            device: the target.
            offset: offset in the target, bytes.
        Raises:
            ConfigError: the array does not fit, or is not contiguous.
        """
        if host.nbytes:
            self._driver.upload(device._handle, offset, _bytes(host, device, offset), self._handle)

    def download(self, device: DeviceBuffer, host: NDArray[Any], offset: int = 0) -> None:
        """Copy bytes from the device into an array; see `upload`."""
        if host.nbytes:
            self._driver.download(_bytes(host, device, offset), device._handle, offset, self._handle)

    def copy(self, address: int, nbytes: int, device: DeviceBuffer, offset: int = 0) -> None:
        """Copy bytes from elsewhere on the device. They must stay until the copy is done.

        Raises:
            ConfigError: the bytes do not fit.
        """
        _check_inside(nbytes, device, offset)
        if nbytes:
            self._driver.copy(device._handle, offset, address, nbytes, self._handle)

    def record(self, event: Event) -> None:
        """Mark the current end of this stream."""
        self._driver.record(event._handle, self._handle)

    def launch(self, function: Any, blocks: int, threads: int, arguments: list[np.number[Any] | DeviceBuffer]) -> None:
        """Run a kernel. Buffers among the arguments are passed as their addresses."""
        numbers = [np.uint64(a.address) if isinstance(a, DeviceBuffer) else a for a in arguments]
        self._driver.launch(function, blocks, threads, numbers, self._handle)

    def synchronize(self) -> None:
        """Wait until all work of this stream is done."""
        self._driver.synchronize(self._handle)

    def __exit__(self, *exc: object) -> None:
        try:
            self.synchronize()
        except EngineError:
            if exc[:1] in ((), (None,)):
                raise
            # After some errors of the GPU every call fails. The first error, which is on its way, says why.
        finally:
            super().__exit__(*exc)


def _bytes(host: NDArray[Any], device: DeviceBuffer, offset: int) -> NDArray[np.uint8]:
    """(nbytes,) uint8 view of an array."""
    if not host.flags.c_contiguous:
        raise ConfigError("only a C-contiguous array can be copied from or to the GPU; see numpy.ascontiguousarray")
    _check_inside(host.nbytes, device, offset)
    return host.reshape(-1).view(np.uint8)


def _check_inside(nbytes: int, device: DeviceBuffer, offset: int) -> None:
    if offset < 0 or offset + nbytes > device.nbytes:
        raise ConfigError(f"{nbytes} bytes at {offset} are outside a device buffer of {device.nbytes}")
