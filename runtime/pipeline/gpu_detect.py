"""Photos on the device: their faces, found as `Detect` finds them, and chosen as `CropFaces` chooses them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cuda.kernels import IMAGE
from ..engines.tensorrt.runner import TensorRTRunner
from ..faces.detectors import Faces, decoder_of
from ..faces.finder import merge, read_answer, small, unsure
from ..faces.rules import FaceRules
from ..faces.selection import chosen, describe, face_of_crop, is_crop, refusal, too_small
from ..images.dali_photos import DevicePhoto, PhotoRun, canvas_side
from ..records import FACE, Outcome


class DetectOnGpu:
    """Photos on the device to the faces in them. Nothing is chosen or refused here.

    Args:
        runner: of the detector.
        rules: how faces are looked for, and which photos are taken as aligned crops.
        size: side of the crop, pixels.
    """

    def __init__(self, runner: TensorRTRunner, rules: FaceRules, size: int) -> None:
        self._runner, self._rules, self._size = runner, rules, size
        self._decoder = decoder_of(runner.info.decode)

    def warm_up(self) -> None:
        """Detect nothing in the largest batch of each view."""
        for view in self._rules.find.views:
            side = canvas_side(view.long_side)
            self._runner.infer(np.zeros((self._runner.info.profile[2], side, side, 3), np.uint8))

    def __call__(self, run: PhotoRun) -> list[Faces | None]:
        """The faces of each photo, in the pixels that it has on the device.

        None for a photo without a sure face in these views, which may have one in others.

        Args:
            run: from DALI, with a canvas for each view of the rules.
        """
        crops = [is_crop(self._rules, self._size, photo.height, photo.width) for photo in run.photos]
        if all(crops):
            return [face_of_crop(self._size) for _ in crops]
        return [
            face_of_crop(self._size) if crop else None if unsure(faces, self._decoder) else faces
            for crop, faces in zip(crops, self._search(run), strict=True)
        ]

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
                    faces += read_answer(slot.finish(count)[0], self._decoder, find, side, side)
            seen.append(
                [part.scaled(1 / view.scale(*photo.shape)) for part, photo in zip(faces, run.photos, strict=True)]
            )
        return [merge(views) for views in zip(*seen, strict=True)]


@dataclass(slots=True)
class ChosenFaces:
    """The faces that count of photos on the device. Grows run by run.

    Attributes:
        rows: of the faces' photos, one a face.
        faces: (F,) FACE, of each photo; without sharpness, which their crops will tell.
        images, landmarks: (F,) IMAGE and (F, 5, 2) float32, of each photo: where its faces are on the device.
        counts, outcomes: see Crops.
        pixels: of all photos, on the device.
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

    def add(self, run: PhotoRun, detected: list[Faces | None], rows: NDArray[np.int64], rules: FaceRules) -> list[int]:
        """Choose among the faces of a run.

        Args:
            run: of photos.
            detected: their faces, from DetectOnGpu.
            rows: by the run's indices.
            rules: which faces count.
        Returns:
            Indices of the photos that are done with. Left to the CPU are those without a sure face, those whose faces
            are small in the views, and those whose faces are to be cut from a larger photo.
        """
        self.pixels += pixels_of(run)
        self.held.append(run.held)
        done = []
        for i, photo, seen in zip(run.indices, run.photos, detected, strict=True):
            if seen is None:
                continue
            row, refused = int(rows[i]), refusal(rules, seen)
            if refused is None:
                counting = chosen(rules, seen, *photo.shape)
                if too_small(counting, photo.reduction) or small(counting).any():
                    continue
                self.rows += [row] * len(counting)
                self.faces.append(describe(counting.scaled(photo.reduction)))
                self.images.append(_images_of(photo, len(counting)))
                self.landmarks.append(counting.landmarks)
            else:
                self.outcomes.append(Outcome(row, *refused))
            self.counts[row] = len(seen)
            done.append(i)
        return done


def pixels_of(run: PhotoRun) -> int:
    """Of all its photos, on the device."""
    return sum(math.prod(photo.shape) for photo in run.photos)


def _images_of(photo: DevicePhoto, count: int) -> NDArray[Any]:
    """(count,) IMAGE: a photo of so many faces."""
    height, width = photo.shape
    return np.array([(photo.address, 3 * width, width, height)] * count, IMAGE)
