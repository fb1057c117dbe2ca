"""A runner that computes with NumPy and can run out of memory, to test the code around an engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import OutOfMemoryError
from tests.support.model_files import info

INFO = info(model="arithmetic", dimension=4, size=8, backend_version="numpy", profile=(1, 8, 256))


class ArithmeticRunner:
    """Compute the mean of each quarter of an image; raise OutOfMemoryError above `fits` images."""

    def __init__(self, fits: int = 10**9) -> None:
        self.info = INFO
        self.fits = fits
        self.sizes: list[int] = []

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise OutOfMemoryError("too large")
        flat = images.reshape(len(images), 4, -1).astype(np.float32)
        return flat.mean(axis=2)

    def __enter__(self) -> ArithmeticRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
