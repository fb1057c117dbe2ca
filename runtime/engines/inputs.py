"""What every engine takes and gives, whatever its backend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..faces.detectors import STRIDES, VALUES, anchor_count
from ..graphs.tensors import FACES, OUTPUT
from .engine import EngineInfo

DETECTOR_SIDES = (32, 224, 1024)  # smallest, usual and largest side of a detector's pictures, for TensorRT's profile
_STEP = STRIDES[-1]  # sides are multiples of it


def output_of(info: EngineInfo) -> str:
    """The name of an engine's one output."""
    return FACES if info.detector else OUTPUT


def answer_shape(info: EngineInfo, height: int, width: int) -> tuple[int, ...]:
    """(D,), or for a detector (P, 15): what an engine gives for one picture of that size."""
    return (anchor_count(info.detector, height, width), VALUES) if info.detector else (info.dimension,)


def largest_sides(info: EngineInfo) -> tuple[int, int]:
    """Height and width of the largest picture that an engine takes."""
    side = DETECTOR_SIDES[-1] if info.detector else info.size
    return side, side


def _shape_fits(shape: tuple[int, ...], info: EngineInfo) -> bool:
    height, width, channels = shape
    if info.detector:
        return channels == 3 and height % _STEP == width % _STEP == 0 < height * width
    return shape == (info.size, info.size, 3)


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Refuse a batch that the engine was not built for.

    Raises:
        ConfigError: dtype, shape, memory layout or batch size is wrong.
    """
    low, _, high = info.profile
    if images.dtype != np.uint8 or images.ndim != 4 or not _shape_fits(images.shape[1:], info):
        sides = "H, W, 3), H and W multiples of 32" if info.detector else f"{info.size}, {info.size}, 3)"
        raise ConfigError(
            f"the engine of {info.model} was given {images.dtype} {images.shape}; wanted: uint8 (n, {sides}, NHWC, "
            f"{info.channel_order.upper()}"
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
