"""Faces in photographs that lie on the device: found in their views, chosen as on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cuda.kernels import IMAGE
from ..engines.tensorrt.runner import TensorRTRunner
from ..faces.detectors import Faces
from ..faces.finder import merge, read_answer, small, unsure
from ..faces.rules import FaceRules
from ..faces.selection import chosen, describe, face_of_crop, is_crop, refusal, too_small
from ..images.dali_photos import PhotoRun, canvas_side
from ..records import FACE, Outcome
from .gpu_fill import images_of


@dataclass(slots=True)
class Found:
    """What was found in photographs that lie on the device; grows by `SearchOnDevice`.

    Attributes:
        rows: of the faces' photographs, one a face.
        faces: (F,) FACE, of each photograph; without sharpness, which their crops will tell.
        images, landmarks: (F,) IMAGE and (F, 5, 2) float32, of each photograph: where its faces lie there.
        counts, outcomes: see Crops.
        pixels: of all photographs, as they lie there.
        held: their memory.
    """

    rows: list[int] = field(default_factory=list)
    faces: list[NDArray[np.void]] = field(default_factory=lambda: [np.empty(0, FACE)])
    images: list[NDArray[np.void]] = field(default_factory=lambda: [np.empty(0, IMAGE)])
    landmarks: list[NDArray[np.float32]] = field(default_factory=lambda: [np.empty((0, 5, 2), np.float32)])
    counts: dict[int, int] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    pixels: int = 0
    held: list[Any] = field(default_factory=list)


class SearchOnDevice:
    """Photographs on the device to the faces that count.

    Args:
        runner: of the detector.
        rules: which faces count.
        size: side of the crop, pixels.
    """

    def __init__(self, runner: TensorRTRunner, rules: FaceRules, size: int) -> None:
        self._runner, self._rules, self._size = runner, rules, size

    def warm_up(self) -> None:
        """Detect nothing in the largest batch of each view."""
        for view in self._rules.find.views:
            side = canvas_side(view.long_side)
            self._runner.infer(np.zeros((self._runner.info.profile[2], side, side, 3), np.uint8))

    def __call__(self, run: PhotoRun, rows: NDArray[np.int64], found: Found) -> list[int]:
        """Add what is found in a run.

        Args:
            run: from DALI, with a canvas for each view of the rules.
            rows: by the run's indices.
            found: what it is added to.
        Returns:
            Indices of the photographs that are settled. Not among them are those without a sure face in these views,
            which may have one in others, those whose faces are small in them, and those whose faces want to be cut from
            a larger photograph.
        """
        found.pixels += pixels_of(run)
        found.held.append(run.held)
        crops = [is_crop(self._rules, self._size, photo.height, photo.width) for photo in run.photos]
        searched = [face_of_crop(self._size)] * len(crops) if all(crops) else self._search(run)
        settled = []
        for i, photo, crop, faces in zip(run.indices, run.photos, crops, searched, strict=True):
            seen = face_of_crop(self._size) if crop else faces
            if not crop and unsure(seen, self._runner.info.detector):
                continue
            row, refused = int(rows[i]), refusal(self._rules, seen)
            if refused is None:
                counting = chosen(self._rules, seen, *photo.shape)
                if too_small(counting, photo.reduction) or small(counting).any():
                    continue
                found.rows += [row] * len(counting)
                found.faces.append(describe(counting.scaled(photo.reduction)))
                found.images.append(images_of(photo, len(counting)))
                found.landmarks.append(counting.landmarks)
            else:
                found.outcomes.append(Outcome(row, *refused))
            found.counts[row] = len(seen)
            settled.append(i)
        return settled

    def _search(self, run: PhotoRun) -> list[Faces]:
        """The faces in the views of each photograph, in the pixels that it has on the device."""
        info, find, total = self._runner.info, self._rules.find, len(run.photos)
        seen = []
        for view, canvases in zip(find.views, run.canvases, strict=True):
            side = canvases.side
            faces: list[Faces] = []
            for start in range(0, total, info.profile[2]):
                count = min(info.profile[2], total - start)
                with self._runner.slot() as slot:
                    slot.take(canvases.address + start * 3 * side * side, (count, side, side, 3))
                    slot.start(count)
                    faces += read_answer(slot.finish(count)[0], info.detector, find, side, side)
            seen.append(
                [one.scaled(1 / view.scale(*photo.shape)) for one, photo in zip(faces, run.photos, strict=True)]
            )
        return [merge(views) for views in zip(*seen, strict=True)]


def pixels_of(run: PhotoRun) -> int:
    """Of all its photographs, as they lie on the device."""
    return sum(math.prod(photo.shape) for photo in run.photos)
