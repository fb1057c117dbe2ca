"""What every engine takes and gives, whatever its backend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .sidecar import EngineInfo

INPUT = "images"  # (N, S, S, 3) uint8
OUTPUT = "embeddings"  # (N, D) float32, unit rows


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Refuse a batch that the engine was not built for.

    Raises:
        ConfigError: dtype, shape, memory layout or batch size is wrong.
    """
    low, _, high = info.profile
    shape = (info.size, info.size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise ConfigError(
            f"the engine of {info.model} was given {images.dtype} {images.shape}; wanted: uint8 (n, {shape[0]}, "
            f"{shape[1]}, 3), NHWC, {info.channel_order.upper()}"
        )
    if not low <= len(images) <= high:
        raise ConfigError(
            f"the engine of {info.model} takes {low} to {high} images a batch and was given {len(images)}. "
            f"Use another --batch-size, or build the engine with another --batch MIN,OPT,MAX"
        )
    if not images.flags.c_contiguous:
        raise ConfigError(
            f"the engine of {info.model} was given images that are not contiguous in memory; "
            f"wanted: C-contiguous (numpy.ascontiguousarray makes a copy that is)"
        )
