"""Draw the calibration set of an INT8 engine: a seeded sample of photos, prepared as `process` prepares them."""

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

_BATCH_PHOTOS = 64


def gather_calibration(
    inputs: Iterable[str],
    spec: ModelSpec,
    *,
    count: int = 512,
    seed: int = 0,
    align: str = "none",
    detector: Engine | None = None,
    landmarks: Engine | None = None,
) -> CalibrationSet:
    """Draw photos until there are enough crops.

    Args:
        inputs: folders, files and @lists, as for `process`.
        spec: the model to calibrate. A detector gets the first view of whole photos, a landmark network the squares of
            faces.
        count: number of crops; there are fewer if the photos do not suffice.
        seed: random seed, 0 <= seed < 2**32. The same photos and seed give the same crops.
        align: which photos are searched for faces, see FaceRules.
        detector: the engine that detects faces; None with align "none".
        landmarks: the engine that looks at each face once more; None to crop by the landmarks of the detector.
    Raises:
        SourceError: there are no photos, or an input cannot be read.
        ConfigError: the seed is out of range, or too few photos become crops.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"the seed is {seed}; expected: 0 <= seed < 2**32")
    source = scan(inputs)
    read = Read(source)
    order = np.random.RandomState(seed).permutation(len(source.names))  # NumPy never changes its stream
    side = side_of(spec)
    parts, drawn, failed = [np.empty((0, side, side, 3), np.uint8)], 0, 0
    with ExitStack() as stack:
        runners = [stack.enter_context(open_runner(engine)) if engine else None for engine in (detector, landmarks)]
        make_crops = _chain(spec, FaceRules(align), *runners)
        for start in range(0, len(order), _BATCH_PHOTOS):
            batch = make_crops(read(Batch(rows=np.sort(order[start : start + _BATCH_PHOTOS]))))
            parts.append(batch.images)
            drawn, failed = drawn + len(batch.images), failed + len(batch.outcomes)
            if drawn >= count:
                break
    crops = np.concatenate(parts)[:count]  # (n, S, S, 3)
    logger.info(
        "calibration: %d crops from %d photos in %s%s",
        len(crops),
        len(order),
        os.fsdecode(source.root),
        f"; {failed} photos failed" if failed else "",
    )
    return CalibrationSet(crops, seed)


def _chain(
    spec: ModelSpec, rules: FaceRules, detector: Runner | None, landmarks: Runner | None
) -> Callable[[Encoded], Crops]:
    """Make the work from encoded photos to the images that the model sees in a run."""
    if spec.detects:
        return _Views(DecodePhotos(spec.channel_order, Limits()))
    return crop_stages(spec, Limits(), rules, detector, landmarks)


@dataclass(frozen=True, slots=True)
class _Views:
    """Encoded photos to the first view of a detector, each on a square canvas."""

    photos: DecodePhotos
    view: View = FindRules().views[0]

    def __call__(self, batch: Encoded) -> Crops:
        decoded = self.photos(batch)
        images = np.zeros((len(decoded.photos), self.view.long_side, self.view.long_side, 3), np.uint8)
        for photo, image in zip(decoded.photos, images, strict=True):
            draw(photo.pixels, self.view, image)
        return Crops(decoded.rows, decoded.outcomes, decoded.digests, images=images)
