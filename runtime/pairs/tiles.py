"""Compare rows tile by tile: matrix products in NumPy or, on a GPU, in CuPy; those that reach a floor are kept."""

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
# Of one matrix product: 16 MiB of scores are looked through while they lie in a cache. A GPU wants more work.
_CPU_SHAPE = (2048, 2048)
_GPU_SHAPE = (8192, 8192)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tiling:
    """N rows in tiles, and the blocks: pairs of tiles, the first tile with itself and all later ones, then the next.

    Attributes:
        rows: N.
        tile_rows: rows of a tile; the last may have fewer.
    """

    rows: int
    tile_rows: int = TILE_ROWS

    def blocks(self) -> list[tuple[int, int]]:
        """The tiles of each block, in order."""
        tiles = -(-self.rows // self.tile_rows)
        return [(i, j) for i in range(tiles) for j in range(i, tiles)]

    def bounds(self, tile: int) -> tuple[int, int]:
        """Start and stop of its rows."""
        return tile * self.tile_rows, min((tile + 1) * self.tile_rows, self.rows)

    def pairs(self, block: tuple[int, int]) -> int:
        """Pairs of rows in a block; those of all blocks add up to N (N - 1) / 2."""
        (a, b), (c, d) = map(self.bounds, block)
        return (b - a) * (b - a - 1) // 2 if a == c else (b - a) * (d - c)


class TileProducts:
    """Matrix products in FP32 on one device, and the memory for one. The same code on both: CuPy has NumPy's functions.

    On a GPU it has not yet been run.
    """

    def __init__(self, arrays: ModuleType = np, shape: tuple[int, int] = _CPU_SHAPE) -> None:
        """Take the room.

        Args:
            arrays: numpy, or cupy with the device chosen.
            shape: rows and columns of one product at most.
        """
        self._arrays, self._shape = arrays, shape
        self._words = nullcontext if arrays is np else _gpu_words
        with self._words():
            self._room = arrays.empty(shape[0] * shape[1], np.float32)

    def put(self, tile: NDArray[np.float32]) -> Any:
        """A tile, (n, D) float32, where it can be multiplied; in NumPy it is the tile itself."""
        with self._words():
            return self._arrays.asarray(tile)

    def at_least(
        self, left: Any, right: Any, floor: np.float32, *, same: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row of `left` and row of `right`, both (m,), of all products that are at least `floor`, a piece at a time.

        Args:
            left, right: (n, D) and (m, D), of `put`.
            floor: compared with inner products in FP32.
            same: both are the same rows: only pairs whose first row is the lower one.
        """
        high, wide = self._shape
        for top in range(0, len(left), high):
            rows = left[top : top + high]
            for start in range(0, len(right), wide):
                columns = right[start : start + wide]
                if same and start + len(columns) - 1 <= top:  # below the diagonal
                    continue
                found = self._reaching(rows, columns, floor)
                first, second = top + found // len(columns), start + found % len(columns)
                if same:
                    above = first < second
                    first, second = first[above], second[above]
                yield first, second

    def _reaching(self, rows: Any, columns: Any, floor: np.float32) -> NDArray[np.int64]:
        """Places of one product, counted row by row, where it is at least `floor`."""
        with self._words():
            out = self._room[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            self._arrays.matmul(rows, columns.T, out=out)  # (rows, columns) float32
            found = self._arrays.flatnonzero(out >= floor)
            return np.asarray(found if self._arrays is np else self._arrays.asnumpy(found), np.int64)


def open_tile_products(device: str) -> TileProducts:
    """TileProducts on the CPU, or on a GPU by CuPy.

    Args:
        device: "auto", "cpu", "gpu" (the first one) or the number of a GPU; auto: a GPU that can be used; else
            the CPU, and the log says why.
    Raises:
        MissingDependencyError, EngineError, OutOfMemoryError: a GPU was asked for and cannot be had.
    """
    if device == "cpu" or (device == "auto" and not count_gpus()):
        return TileProducts()
    number = int(device) if device.isdecimal() else 0
    try:
        name, _ = gpu_memory(number)  # refuses what cannot be used, in words
        if os.environ.get("CUPY_TF32", "0") != "0":
            raise EngineError("CUPY_TF32 is set: FP32 becomes TF32, for which no answer is proven. Do: unset CUPY_TF32")
        cupy = require("cupy", extra="gpu", purpose="matrix products on a GPU")
        with _gpu_words():
            cupy.cuda.Device(number).use()
        found = TileProducts(cupy, _GPU_SHAPE)
    except FacemillError as err:
        if device != "auto":
            raise
        logger.warning("comparing on the CPU: %s", err.message)
        return TileProducts()
    logger.info("comparing on GPU %d (%s)", number, name)
    return found


@contextmanager
def _gpu_words() -> Iterator[None]:
    """CuPy raises RuntimeError for what CUDA refuses, and MemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as err:
        kind = OutOfMemoryError if isinstance(err, MemoryError) else EngineError
        words = " ".join(str(err).split())
        raise kind(f"CuPy failed: {words}. See what is wrong with: facemill doctor, or use --device cpu") from err
