"""Small engines for tests of what surrounds an engine: arithmetic in NumPy, with a memory that can run out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.engines.engine import EngineInfo
from runtime.errors import OutOfMemoryError

INFO = EngineInfo(
    model="arithmetic",
    model_sha256="0" * 64,
    trained=False,
    dimension=4,
    size=8,
    channel_order="rgb",
    backend="cpu",
    backend_version="numpy",
    precision="fp32",
    profile=(1, 8, 256),
    device="cpu",
    engine_sha256="1" * 64,
    tool_version="0",
)


class ArithmeticRunner:
    """Mean of each quarter of the image; OutOfMemoryError above `fits` images."""

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
