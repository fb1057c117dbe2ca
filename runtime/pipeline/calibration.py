"""Crops to calibrate an INT8 engine on: a seeded sample of photographs, decoded as `process` decodes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

import numpy as np

from ..engines.calibrate import CalibrationSet
from ..errors import ConfigError
from ..images.decode import Limits
from ..modelspec import ModelSpec
from ..records import Batch
from ..sources.scan import scan
from .work import Decode, Read

logger = logging.getLogger(__name__)

_BATCH = 64


def gather_calibration(inputs: Iterable[str], spec: ModelSpec, *, count: int = 512, seed: int = 0) -> CalibrationSet:
    """Draw photographs until enough of them have become crops.

    Args:
        inputs: folders, files and @lists, as `process` takes them.
        spec: the model that the crops are for.
        count: crops wanted; fewer come back where there are not as many photographs.
        seed: of the draw; the same photographs and seed give the same crops. 0 <= seed < 2**32.
    Raises:
        SourceError: nothing was found, or cannot be read.
        ConfigError: the seed is out of range, or too few photographs can be decoded.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"the seed is {seed}; wanted: 0 <= seed < 2**32")
    found = scan(inputs)
    read, decode = Read(found.root, found.paths, Limits()), Decode(spec.size, spec.channel_order, Limits())
    order = np.random.RandomState(seed).permutation(len(found.paths))  # its stream is frozen for good
    parts, have, failed = [np.empty((0, spec.size, spec.size, 3), np.uint8)], 0, 0
    for start in range(0, len(order), _BATCH):
        batch = decode(read(Batch(rows=np.sort(order[start : start + _BATCH]))))
        assert batch.images is not None
        parts.append(batch.images)
        have, failed = have + len(batch.images), failed + len(batch.outcomes)
        if have >= count:
            break
    crops = np.concatenate(parts)[:count]  # (n, S, S, 3)
    logger.info(
        "calibration: %d crops from %d photographs in %s%s",
        len(crops),
        len(order),
        os.fsdecode(found.root),
        f"; {failed} could not be decoded" if failed else "",
    )
    return CalibrationSet(crops, seed)
