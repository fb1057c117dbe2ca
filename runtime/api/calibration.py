"""What an INT8 engine is calibrated on: a seeded sample of photographs, as `process` shows them to the model."""

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
    """Draw photographs until enough of them have become crops.

    Args:
        inputs: folders, files and @lists, as `process` takes them.
        spec: the model that the crops are for; a detector gets its first view of whole photographs.
        count: crops wanted; fewer come back where there are not as many photographs.
        seed: of the draw; the same photographs and seed give the same crops. 0 <= seed < 2**32.
        align: which photographs are searched for faces, see FaceRules.
        detector: the engine that searches them; None where none are.
    Raises:
        SourceError: nothing was found, or cannot be read.
        ConfigError: the seed is out of range, or too few photographs become crops.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"the seed is {seed}; expected: 0 <= seed < 2**32")
    source = scan(inputs)
    read = Read(source)
    order = np.random.RandomState(seed).permutation(len(source.names))  # its stream is frozen for good
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
        "calibration: %d crops from %d photographs in %s%s",
        len(crops),
        len(order),
        os.fsdecode(source.root),
        f"; {failed} gave none" if failed else "",
    )
    return CalibrationSet(crops, seed)


def _chain(spec: ModelSpec, rules: FaceRules, detector: Runner | None) -> Callable[[Encoded], Crops]:
    """Encoded photos to what the model sees, as in a run."""
    if spec.detects:
        return _Views(DecodePhotos(spec.channel_order, Limits()))
    return crop_stages(spec, Limits(), rules, detector)


@dataclass(frozen=True, slots=True)
class _Views:
    """Files to what a detector sees of them first, each on a square canvas."""

    photos: DecodePhotos
    view: View = FindRules().views[0]

    def __call__(self, batch: Encoded) -> Crops:
        decoded = self.photos(batch)
        images = np.zeros((len(decoded.photos), self.view.long_side, self.view.long_side, 3), np.uint8)
        for photo, image in zip(decoded.photos, images, strict=True):
            draw(photo.pixels, self.view, image)
        return Crops(decoded.rows, decoded.outcomes, decoded.digests, images=images)
