"""What an INT8 engine is calibrated on: a seeded sample of photographs, as `process` shows them to the model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..engines.calibrate import CalibrationSet, side_of
from ..engines.engine import Engine
from ..engines.open import open_runner
from ..errors import ConfigError
from ..faces.finder import FindRules, View, draw
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..modelspec import ModelSpec
from ..records import Batch, Crops, Encoded
from ..sources.scan import scan
from .face_work import DecodePhotos, FindFaces
from .work import Decode, Read

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
        raise ConfigError(f"the seed is {seed}; wanted: 0 <= seed < 2**32")
    found = scan(inputs)
    read = Read(found.root, found.paths, Limits())
    order = np.random.RandomState(seed).permutation(len(found.paths))  # its stream is frozen for good
    side = side_of(spec)
    parts, have, failed = [np.empty((0, side, side, 3), np.uint8)], 0, 0
    with _crops_of(spec, FaceRules(align), detector) as crops_of:
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
        os.fsdecode(found.root),
        f"; {failed} gave none" if failed else "",
    )
    return CalibrationSet(crops, seed)


@contextmanager
def _crops_of(spec: ModelSpec, rules: FaceRules, detector: Engine | None) -> Iterator[Callable[[Encoded], Crops]]:
    """Files to crops, as `process` makes them."""
    limits = Limits()
    if spec.detector:
        yield _Views(DecodePhotos(spec.channel_order, limits))
    elif detector is None:
        yield Decode(spec.size, spec.channel_order, limits)
    else:
        with open_runner(detector) as runner:
            photos = DecodePhotos(spec.channel_order, limits)
            faces = FindFaces(runner, rules, spec.size, spec.channel_order, limits)
            yield lambda batch: faces(photos(batch))


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
