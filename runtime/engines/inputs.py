"""What engines take and answer, by the task of their model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..faces.detectors import decoder_of
from ..graphs.tensors import FACES, OUTPUT
from ..modelspec import ModelSpec
from .engine import EngineInfo

_USUAL_SIDE, _LARGEST_SIDE = 224, 1024  # of a detector's pictures, pixels


def output_of(model: ModelSpec | EngineInfo) -> str:
    """The name of an engine's one output."""
    return FACES if model.detects else OUTPUT


def sides_of(model: ModelSpec | EngineInfo) -> tuple[int, int, int]:
    """Smallest, usual and largest side of the pictures that an engine takes, pixels."""
    if model.detects:
        return decoder_of(model.decode).step, _USUAL_SIDE, _LARGEST_SIDE
    return model.size, model.size, model.size


def answer_shape(info: EngineInfo, height: int, width: int) -> tuple[int, ...]:
    """(D,), or for a detector (P, V): what an engine answers for one picture of that size."""
    if not info.detects:
        return (info.dimension,)
    decoder = decoder_of(info.decode)
    return decoder.anchor_count(height, width), decoder.values


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Refuse a batch that the engine was not built for.

    Raises:
        ConfigError: dtype, shape, memory layout or batch size is wrong.
    """
    low, _, high = info.profile
    if images.dtype != np.uint8 or images.ndim != 4 or not _fits(images.shape[1:], info):
        step = sides_of(info)[0]
        sides = f"H, W, 3), H and W multiples of {step}" if info.detects else f"{info.size}, {info.size}, 3)"
        raise ConfigError(
            f"the engine of {info.model} was given {images.dtype} {images.shape}; expected: uint8 (n, {sides}, NHWC, "
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
            f"expected: C-contiguous (numpy.ascontiguousarray makes a copy that is)"
        )


def _fits(shape: tuple[int, ...], info: EngineInfo) -> bool:
    height, width, channels = shape
    if info.detects:
        step = decoder_of(info.decode).step
        return channels == 3 and height % step == width % step == 0 < height * width
    return shape == (info.size, info.size, 3)
