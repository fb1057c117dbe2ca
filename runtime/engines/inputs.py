"""The inputs and outputs of engines, by the task of their model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..faces.detectors import decoder_of
from ..graphs.tensors import OUTPUTS
from ..modelspec import ModelSpec
from .engine import EngineInfo

_USUAL_SIDE, _LARGEST_SIDE = 224, 1024  # of a detector's images, pixels


def output_of(model: ModelSpec | EngineInfo) -> str:
    """The name of an engine's output."""
    return OUTPUTS[model.task]


def sides_of(model: ModelSpec | EngineInfo) -> tuple[int, int, int]:
    """Smallest, usual and largest side of an engine's input images, pixels."""
    if model.detects:
        return decoder_of(model.decode).step, _USUAL_SIDE, _LARGEST_SIDE
    return model.size, model.size, model.size


def output_shape(info: EngineInfo, height: int, width: int) -> tuple[int, ...]:
    """The shape of an engine's output for one image of this size: (D,), or (P, V) for a detector."""
    if not info.detects:
        return (info.dimension,)
    decoder = decoder_of(info.decode)
    return decoder.anchor_count(height, width), decoder.values


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Check that the engine accepts a batch.

    Raises:
        ConfigError: dtype, shape, memory layout or batch size is wrong.
    """
    low, _, high = info.profile
    if images.dtype != np.uint8 or images.ndim != 4 or not _fits(images.shape[1:], info):
        step = sides_of(info)[0]
        sides = f"H, W, 3), H and W multiples of {step}" if info.detects else f"{info.size}, {info.size}, 3)"
        raise ConfigError(
            f"the engine of {info.model} got {images.dtype} {images.shape}; expected: uint8 (n, {sides}, NHWC, "
            f"{info.channel_order.upper()}"
        )
    if not low <= len(images) <= high:
        raise ConfigError(
            f"the engine of {info.model} takes {low} to {high} images per batch and got {len(images)}. "
            f"Change --batch-size, or rebuild the engine with another --batch MIN,OPT,MAX"
        )
    if not images.flags.c_contiguous:
        raise ConfigError(
            f"the engine of {info.model} got images that are not contiguous in memory; "
            f"expected: C-contiguous, as numpy.ascontiguousarray returns"
        )


def _fits(shape: tuple[int, ...], info: EngineInfo) -> bool:
    height, width, channels = shape
    if info.detects:
        step = decoder_of(info.decode).step
        return channels == 3 and height % step == width % step == 0 < height * width
    return shape == (info.size, info.size, 3)
