"""Gather the calibration crops of an INT8 engine: a seeded sample of photos, prepared as `process` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..engines.backends import open_runner
from ..engines.calibrate import CalibrationSet, side_of
from ..engines.engine import Engine
from ..engines.runner import Runner
from ..errors import ConfigError
from ..faces.finder import FindRules, View, draw
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..modelspec import ModelSpec
from ..pipeline.face_work import DecodePhotos, crop_stages
from ..pipeline.work import Read
from ..records import Batch, Crops, Encoded
from ..sources.scan import scan

logger = logging.getLogger(__name__)

_BATCH = 64


def gather_calibration(
    inputs: Iterable[str],
    spec: ModelSpec,
    *,
    count: int = 512,
    seed: int = 0,
    align: str = "none",
    detector: Engine | None = None,
) -> CalibrationSet:
    """Draw photos until enough of them have become crops.

    Args:
        inputs: folders, files and @lists, as for `process`.
        spec: the model that the crops are for; a detector gets its first view of whole photos.
        count: number of crops; fewer are returned if the inputs have too few photos.
        seed: random seed, 0 <= seed < 2**32; the same photos and seed give the same crops.
        align: the photos in which faces are detected: "auto", "detect" or "none"; see FaceRules.
        detector: the engine that detects faces; None if no photo needs it.
    Raises:
        SourceError: no photos were found, or an input cannot be read.
        ConfigError: the seed is out of range, or too few photos become crops.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"the seed is {seed}; expected: 0 <= seed < 2**32")
    source = scan(inputs)
    read = Read(source)
    order = np.random.RandomState(seed).permutation(len(source.names))  # NumPy keeps this stream unchanged
    side = side_of(spec)
    parts, have, failed = [np.empty((0, side, side, 3), np.uint8)], 0, 0
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(detector)) if detector else None
        crops_of = _chain(spec, FaceRules(align), runner)
        for start in range(0, len(order), _BATCH):
            batch = crops_of(read(Batch(rows=np.sort(order[start : start + _BATCH]))))
            parts.append(batch.images)
            have, failed = have + len(batch.images), failed + len(batch.outcomes)
            if have >= count:
                break
    crops = np.concatenate(parts)[:count]  # (n, S, S, 3)
    logger.info(
        "calibration: %d crops from %d photos in %s%s",
        len(crops),
        len(order),
        os.fsdecode(source.root),
        f"; {failed} gave none" if failed else "",
    )
    return CalibrationSet(crops, seed)


def _chain(spec: ModelSpec, rules: FaceRules, detector: Runner | None) -> Callable[[Encoded], Crops]:
    """The stages that turn encoded photos into inputs of the model, as in a run."""
    if spec.detects:
        return _Views(DecodePhotos(spec.channel_order, Limits()))
    return crop_stages(spec, Limits(), rules, detector)


@dataclass(frozen=True, slots=True)
class _Views:
    """Draws the first view of a detector for each photo, on a square canvas."""

    photos: DecodePhotos
    view: View = FindRules().views[0]

    def __call__(self, batch: Encoded) -> Crops:
        decoded = self.photos(batch)
        images = np.zeros((len(decoded.photos), self.view.long_side, self.view.long_side, 3), np.uint8)
        for photo, image in zip(decoded.photos, images, strict=True):
            draw(photo.pixels, self.view, image)
        return Crops(decoded.rows, decoded.outcomes, decoded.digests, images=images)
