"""Our kernels: compiled when first used, checked, launched."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assets import asset_dir
from ..errors import ConfigError
from .driver import Driver
from .resources import DeviceBuffer, Stream

# One photograph in device memory, as `struct Image` of image.cuh: (height, width, 3) uint8, rows `pitch` bytes apart.
IMAGE = np.dtype([("pixels", np.uint64), ("pitch", np.int64), ("width", np.int32), ("height", np.int32)])
LONGEST_ROW = 1024  # of l2norm

_THREADS = 128  # of a block: four warps
_WARP = 32


def kernel_source(name: str) -> str:
    """The CUDA C++ of a kernel file, e.g. "align", with its headers written in: a compiler needs no folder."""
    folder = asset_dir("kernels")

    def header(include: re.Match[str]) -> str:
        return (folder / include[1]).read_text(encoding="utf-8")

    return re.sub(r'#include "(\w+\.cuh)"', header, (folder / f"{name}.cu").read_text(encoding="utf-8"))


def normalisation(mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(2, 3) float32, by channel of the crop: (x - mean) / std as x * table[0] + table[1]."""
    scale = 1 / np.asarray(std, np.float64)
    return np.stack([scale, -np.asarray(mean) * scale]).astype(np.float32)


class Kernels:
    """The kernels of one device, for any number of threads. Everything is in device memory; nothing is waited for."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._modules: dict[str, Any] = {}
        self._compiling = threading.Lock()

    def align(
        self,
        stream: Stream,
        images: DeviceBuffer,
        transforms: DeviceBuffer,
        normalise: DeviceBuffer,
        crops: DeviceBuffer,
        *,
        count: int,
        size: int,
        half: bool = True,
        reverse: bool = False,
    ) -> None:
        """Warp and normalise photographs of any sizes: see `images.warp.warp_crops`.

        Args:
            images: (count,) of IMAGE.
            transforms: (count, 2, 3) float32, crop pixel (column, row, 1) -> photograph pixel.
            normalise: what `normalisation` gives.
            crops: (count, 3, size, size), float16 or float32; written.
            half: crops are float16.
            reverse: the crops' channels are the photographs' in reverse order.
        Raises:
            ConfigError: a buffer is too small.
        """
        needs = (count * IMAGE.itemsize, count * 24, 24, _crop_bytes(count, size, half))
        _check_room(needs, (images, transforms, normalise, crops))
        numbers = [np.int32(count), np.int32(size), np.int32(reverse)]
        arguments = [images, transforms, normalise, crops, *numbers]
        self._launch(stream, "align", _kind(half), count * size * size, arguments)

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
        """Warp photographs of any sizes to crops of grey levels: see `images.warp.warp_bytes`.

        Args:
            images, transforms, reverse: as for `align`.
            crops: (count, size, size, 3) uint8; written.
        Raises:
            ConfigError: a buffer is too small.
        """
        _check_room((count * IMAGE.itemsize, count * 24, count * 3 * size * size), (images, transforms, crops))
        numbers = [np.int32(count), np.int32(size), np.int32(reverse)]
        self._launch(stream, "align", "u8", count * size * size, [images, transforms, crops, *numbers])

    def preprocess(
        self,
        stream: Stream,
        images: DeviceBuffer,
        normalise: DeviceBuffer,
        crops: DeviceBuffer,
        *,
        count: int,
        height: int,
        width: int,
        size: int,
        pitch: int | None = None,
        half: bool = True,
        reverse: bool = False,
    ) -> None:
        """Resize and normalise photographs of one size: see `images.preprocess.preprocess_crops`.

        Args:
            images: (count, height, width, 3) uint8.
            normalise, crops, half, reverse: as for `align`.
            pitch: bytes from row to row; None: rows follow each other.
        Raises:
            ConfigError: a buffer is too small, a photograph is empty, or the pitch shorter than a row.
        """
        pitch = 3 * width if pitch is None else pitch
        if pitch < 3 * width or height < 1 or width < 1:
            raise ConfigError(
                f"photographs of {width}x{height} pixels with a pitch of {pitch} bytes cannot be read; wanted: at "
                f"least one pixel, and a pitch of at least 3 x width"
            )
        needs = (count * height * pitch, 24, _crop_bytes(count, size, half))
        _check_room(needs, (images, normalise, crops))
        numbers = [np.int32(n) for n in (count, height, width, size, reverse)]
        arguments = [images, np.int64(pitch), normalise, crops, *numbers]
        self._launch(stream, "preprocess", _kind(half), count * size * size, arguments)

    def preprocess_bytes(
        self, stream: Stream, images: DeviceBuffer, crops: DeviceBuffer, *, first: int, count: int, size: int
    ) -> None:
        """Resize photographs of any sizes to crops of grey levels: see `images.preprocess.preprocess_bytes`.

        Args:
            images: (first + count,) of IMAGE; those before `first` are left out.
            crops: (first + count, size, size, 3) uint8; those from `first` on are written.
        Raises:
            ConfigError: a buffer is too small.
        """
        _check_room(((first + count) * IMAGE.itemsize, (first + count) * 3 * size * size), (images, crops))
        numbers = [np.int32(first), np.int32(count), np.int32(size)]
        self._launch(stream, "preprocess", "u8", count * size * size, [images, crops, *numbers])

    def l2norm(
        self, stream: Stream, rows: DeviceBuffer, units: DeviceBuffer, *, count: int, dimension: int, half: bool = True
    ) -> None:
        """Rows to unit rows: see `engines.unit.unit_rows`.

        Args:
            rows: (count, dimension), float16 or float32.
            units: (count, dimension) float32; written; may be `rows` if those are float32.
            half: rows are float16.
        Raises:
            ConfigError: a buffer is too small, or the rows are longer than LONGEST_ROW.
        """
        if not 1 <= dimension <= LONGEST_ROW:
            raise ConfigError(f"rows of {dimension} numbers cannot be normalised; wanted: 1 to {LONGEST_ROW}")
        _check_room((count * dimension * (2 if half else 4), count * dimension * 4), (rows, units))
        numbers = [np.int32(count), np.int32(dimension)]
        self._launch(stream, "l2norm", _kind(half), count * _WARP, [rows, units, *numbers])

    def _launch(self, stream: Stream, name: str, kind: str, threads: int, arguments: list[Any]) -> None:
        if not threads:
            return  # CUDA refuses an empty grid
        with self._compiling:
            if name not in self._modules:
                self._modules[name] = self._driver.compile(kernel_source(name), f"{name}.cu")
        function = self._driver.function(self._modules[name], f"{name}_{kind}")
        stream.launch(function, -(-threads // _THREADS), _THREADS, arguments)


def _kind(half: bool) -> str:
    """How an entry's name ends, by the type of its numbers."""
    return "f16" if half else "f32"


def _crop_bytes(count: int, size: int, half: bool) -> int:
    return count * 3 * size * size * (2 if half else 4)


def _check_room(needs: Sequence[int], buffers: Sequence[DeviceBuffer]) -> None:
    """A kernel writes where it is told to: nothing on the GPU would stop it."""
    for need, buffer in zip(needs, buffers, strict=True):
        if buffer.nbytes < need:
            raise ConfigError(
                f"a device buffer of {buffer.nbytes} bytes is too small; wanted: {need}. Reserve it first"
            )
