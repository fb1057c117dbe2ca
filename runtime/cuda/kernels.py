"""Launch our kernels: compile each at its first use, and check its arguments."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..assets import asset_dir
from ..errors import ConfigError
from .driver import Driver
from .resources import DeviceBuffer, Stream

# One photo in device memory, as `struct Image` of image.cuh: (height, width, 3) uint8, rows `pitch` bytes apart.
IMAGE = np.dtype([("pixels", np.uint64), ("pitch", np.int64), ("width", np.int32), ("height", np.int32)])

_BLOCK_THREADS = 128  # four warps


def kernel_source(name: str) -> str:
    """The CUDA C++ of a kernel file, e.g. "align", with its headers inlined, so that the compiler needs no folder."""
    folder = asset_dir("kernels")

    def header(include: re.Match[str]) -> str:
        return (folder / include[1]).read_text(encoding="utf-8")

    return re.sub(r'#include "(\w+\.cuh)"', header, (folder / f"{name}.cu").read_text(encoding="utf-8"))


class Kernels:
    """The kernels of one device. Any thread may use them. All data is in device memory; no call waits for the GPU."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._modules: dict[str, Any] = {}
        self._compiling = threading.Lock()

    def align_bytes(
        self,
        stream: Stream,
        images: DeviceBuffer,
        transforms: DeviceBuffer,
        crops: DeviceBuffer,
        *,
        count: int,
        size: int,
        reverse: bool = False,
    ) -> None:
        """Warp photos of any size to crops of grey levels, as `faces.align.align_crops` does.

        Args:
            images: (count,) IMAGE.
            transforms: (count, 2, 3) float32, crop pixel (column, row, 1) -> photo pixel.
            crops: (count, size, size, 3) uint8, the output.
            reverse: whether to reverse the channel order.
        Raises:
            ConfigError: a buffer is too small.
        """
        _check_sizes((count * IMAGE.itemsize, count * 24, count * 3 * size * size), (images, transforms, crops))
        numbers = [np.int32(count), np.int32(size), np.int32(reverse)]
        self._launch(stream, "align", count * size * size, [images, transforms, crops, *numbers])

    def preprocess_bytes(
        self, stream: Stream, images: DeviceBuffer, crops: DeviceBuffer, *, first: int, count: int, size: int
    ) -> None:
        """Resize photos of any size to crops of grey levels, as `images.decode.decode_image` does.

        Args:
            images: (first + count,) IMAGE; those before `first` are skipped.
            crops: (first + count, size, size, 3) uint8, the output from `first` on.
        Raises:
            ConfigError: a buffer is too small.
        """
        _check_sizes(((first + count) * IMAGE.itemsize, (first + count) * 3 * size * size), (images, crops))
        numbers = [np.int32(first), np.int32(count), np.int32(size)]
        self._launch(stream, "preprocess", count * size * size, [images, crops, *numbers])

    def _launch(self, stream: Stream, name: str, threads: int, arguments: list[Any]) -> None:
        if not threads:
            return  # CUDA refuses an empty grid
        with self._compiling:
            if name not in self._modules:
                self._modules[name] = self._driver.compile(kernel_source(name), f"{name}.cu")
        function = self._driver.function(self._modules[name], f"{name}_u8")
        stream.launch(function, -(-threads // _BLOCK_THREADS), _BLOCK_THREADS, arguments)


def _check_sizes(sizes: Sequence[int], buffers: Sequence[DeviceBuffer]) -> None:
    """Check the sizes of buffers, because a kernel does not check what it writes to."""
    for size, buffer in zip(sizes, buffers, strict=True):
        if buffer.nbytes < size:
            raise ConfigError(f"a device buffer of {buffer.nbytes} bytes is too small; expected: {size}")
