"""Compare rows tile by tile with matrix products, in NumPy or in CuPy on a GPU, and keep those that reach a floor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, FacemillError, OutOfMemoryError
from ..extras import require
from ..index.gpu import count_gpus, gpu_memory

TILE_ROWS = 8192  # two tiles are in memory, 34 MB for 512 columns
# Largest matrix product. Its 16 MiB of scores stay in the CPU's cache; a GPU needs more work at once.
_CPU_SHAPE = (2048, 2048)
_GPU_SHAPE = (8192, 8192)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tiling:
    """N rows in tiles. A block is a pair of tiles: the first tile with itself and all later ones, then the next.

    Attributes:
        rows: N.
        tile_rows: rows per tile; the last may have fewer.
    """

    rows: int
    tile_rows: int = TILE_ROWS

    def blocks(self) -> list[tuple[int, int]]:
        """Return the two tiles of each block, in order."""
        tiles = -(-self.rows // self.tile_rows)
        return [(i, j) for i in range(tiles) for j in range(i, tiles)]

    def bounds(self, tile: int) -> tuple[int, int]:
        """Return start and stop of a tile's rows."""
        return tile * self.tile_rows, min((tile + 1) * self.tile_rows, self.rows)

    def pairs(self, block: tuple[int, int]) -> int:
        """Count the pairs of rows in a block. All blocks together have N (N - 1) / 2."""
        (a, b), (c, d) = map(self.bounds, block)
        return (b - a) * (b - a - 1) // 2 if a == c else (b - a) * (d - c)


class TileProducts:
    """FP32 matrix products on one device, with the memory for one. CuPy has NumPy's functions, so both share this code.

    It has not yet run on a GPU.
    """

    def __init__(self, arrays: ModuleType = np, shape: tuple[int, int] = _CPU_SHAPE) -> None:
        """Allocate the memory of one product.

        Args:
            arrays: numpy, or cupy with its device selected.
            shape: most rows and columns of one product.
        """
        self._arrays, self._shape = arrays, shape
        self._errors = nullcontext if arrays is np else _translate_gpu_errors
        with self._errors():
            self._scores = arrays.empty(shape[0] * shape[1], np.float32)

    def put(self, tile: NDArray[np.float32]) -> Any:
        """Copy a tile, (n, D) float32, to the device; on the CPU, return the tile itself."""
        with self._errors():
            return self._arrays.asarray(tile)

    def at_least(
        self, left: Any, right: Any, floor: np.float32, *, same: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the rows of `left` and of `right`, both (k,), whose products are at least `floor`, piece by piece.

        Args:
            left, right: (n, D) and (m, D), from `put`.
            floor: compared with inner products in FP32.
            same: whether both are the same rows; then only pairs with the lower row first.
        """
        high, wide = self._shape
        for top in range(0, len(left), high):
            rows = left[top : top + high]
            for start in range(0, len(right), wide):
                columns = right[start : start + wide]
                if same and start + len(columns) - 1 <= top:  # below the diagonal
                    continue
                cells = self._cells_at_least(rows, columns, floor)
                first, second = top + cells // len(columns), start + cells % len(columns)
                if same:
                    above = first < second
                    first, second = first[above], second[above]
                yield first, second

    def _cells_at_least(self, rows: Any, columns: Any, floor: np.float32) -> NDArray[np.int64]:
        """Return the flat indices of one product that are at least `floor`."""
        with self._errors():
            out = self._scores[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            self._arrays.matmul(rows, columns.T, out=out)  # (rows, columns) float32
            cells = self._arrays.flatnonzero(out >= floor)
            return np.asarray(cells if self._arrays is np else self._arrays.asnumpy(cells), np.int64)


def open_tile_products(device: str) -> TileProducts:
    """Open TileProducts on the CPU, or on a GPU with CuPy.

    Args:
        device: "auto", "cpu", "gpu" (the first GPU) or the number of a GPU. "auto" uses the first GPU if it works, else
            the CPU, and logs the reason.
    Raises:
        MissingDependencyError, EngineError, OutOfMemoryError: the GPU is not available.
    """
    if device == "cpu" or (device == "auto" and not count_gpus()):
        return TileProducts()
    number = int(device) if device.isdecimal() else 0
    try:
        name, _ = gpu_memory(number)  # raises with the reason if the GPU cannot be used
        if os.environ.get("CUPY_TF32", "0") != "0":
            raise EngineError(
                "CUPY_TF32 is set, which replaces FP32 by TF32; exact results need FP32. Run: unset CUPY_TF32"
            )
        cupy = require("cupy", extra="gpu", purpose="matrix products on a GPU")
        with _translate_gpu_errors():
            cupy.cuda.Device(number).use()
        products = TileProducts(cupy, _GPU_SHAPE)
    except FacemillError as err:
        if device != "auto":
            raise
        logger.warning("comparing on the CPU: %s", err.message)
        return TileProducts()
    logger.info("comparing on GPU %d (%s)", number, name)
    return products


@contextmanager
def _translate_gpu_errors() -> Iterator[None]:
    """Turn the RuntimeError and MemoryError that CuPy raises into ours."""
    try:
        yield
    except (RuntimeError, MemoryError) as err:
        kind = OutOfMemoryError if isinstance(err, MemoryError) else EngineError
        reason = " ".join(str(err).split())
        raise kind(f"CuPy failed: {reason}. Check the GPU with: facemill doctor, or use --device cpu") from err
