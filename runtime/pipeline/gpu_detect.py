"""Detect faces on the GPU, select some and look at them once more, as `Detect` and `CropFaces` do on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cuda.kernels import IMAGE
from ..engines.tensorrt.runner import TensorRTRunner
from ..faces.align import inverse_transforms
from ..faces.detectors import Faces, decoder_of
from ..faces.finder import are_small, decode_output, lacks_sure_face, merge_views
from ..faces.rules import FaceRules
from ..faces.second_look import MARGIN, refine
from ..faces.selection import (
    describe_faces,
    face_of_crop,
    is_crop,
    may_be_crop,
    needs_larger_photo,
    reject_photo,
    select_faces,
    set_landmarks,
)
from ..images.dali_photos import DevicePhoto, PhotoRun, canvas_side
from ..records import FACE, Outcome
from .gpu_fill import Warp


class DetectOnGpu:
    """Detect the faces of photos on the device. No face is selected or rejected here.

    Args:
        runner: the runner of the detector.
        rules: how faces are detected, and which photos are taken as aligned crops.
        size: side of the crop, pixels.
    """

    def __init__(self, runner: TensorRTRunner, rules: FaceRules, size: int) -> None:
        self._runner, self._rules, self._size = runner, rules, size
        self._decoder = decoder_of(runner.info.decode)

    def warm_up(self) -> None:
        """Run an empty batch of the largest size for each view, all in one slot."""
        with self._runner.slot() as slot:
            for view in self._rules.find.views:
                slot.run_empty(self._runner.info.profile[2], canvas_side(view.long_side))

    def __call__(self, run: PhotoRun) -> list[Faces | None]:
        """Detect the faces of each photo, in its pixels on the device.

        The result is None for a photo without a confident face in these views; other views may show one.

        Args:
            run: a run of DALI, with a canvas for each view of the rules.
        """
        results: list[Faces | None] = []
        for photo, faces in zip(run.photos, self._search(run), strict=True):
            square = may_be_crop(self._rules, self._size, photo.height, photo.width)
            if square and is_crop(faces, self._size):
                results.append(face_of_crop(self._size))
            else:
                results.append(None if lacks_sure_face(faces, self._decoder) else faces)
        return results

    def _search(self, run: PhotoRun) -> list[Faces]:
        """Detect the faces in the views of each photo, in its pixels on the device."""
        info, find, total = self._runner.info, self._rules.find, len(run.photos)
        by_view = []
        for view, canvases in zip(find.views, run.canvases, strict=True):
            side = canvases.side
            faces: list[Faces] = []
            for start in range(0, total, info.profile[2]):
                count = min(info.profile[2], total - start)
                with self._runner.slot() as slot:
                    slot.take(canvases.address + start * 3 * side * side, (count, side, side, 3))
                    slot.start(count, info.profile[2])
                    faces += decode_output(slot.finish(count)[0], self._decoder, find, side, side)
            by_view.append([f.scale(1 / view.scale(*photo.shape)) for f, photo in zip(faces, run.photos, strict=True)])
        return [merge_views(views) for views in zip(*by_view, strict=True)]


class LookOnGpu:
    """Looks once more at faces on the device, as `faces.second_look.SecondLook` does on the host.

    Args:
        runner: the runner of the landmark network.
    Attributes:
        size: side of a square, pixels.
        capacity: squares in every batch.
        channel_order: the channel order of the squares.
    """

    def __init__(self, runner: TensorRTRunner) -> None:
        self._runner, info = runner, runner.info
        self.size, self.capacity, self.channel_order = info.size, info.profile[1], info.channel_order

    def warm_up(self) -> None:
        """Run an empty batch of the largest size in one slot."""
        with self._runner.slot() as slot:
            slot.run_empty(self.capacity, self.size)

    def __call__(self, warp: Warp, images: NDArray[np.void], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Find better landmarks.

        Args:
            warp: makes squares of this size in this channel order, at least `capacity` at once.
            images: (F,) IMAGE, the photo of each face on the device.
            landmarks: (F, 5, 2) float32, pixels of these photos: the first look.
        Returns:
            (F, 5, 2) float32, a new array.
        """

        def see(faces: NDArray[np.int64], places: NDArray[np.float32]) -> NDArray[np.float32]:
            back = inverse_transforms(places, self.size, MARGIN)  # (n, 2, 3)
            answers = np.empty((len(faces), self._runner.info.dimension), np.float32)
            for start in range(0, len(faces), self.capacity):
                stop = min(start + self.capacity, len(faces))
                with self._runner.slot() as slot:
                    warp(slot, images[faces[start:stop]], back[start:stop])
                    slot.start(stop - start, self.capacity)
                    answers[start:stop] = slot.finish(stop - start)[0]
            return answers

        return refine(landmarks, self.size, see)


@dataclass(slots=True)
class SelectedFaces:
    """The selected faces of photos on the device. It grows run by run.

    Attributes:
        rows: the row of each face's photo.
        faces: (F,) FACE for each photo. Their sharpness and exposure are set later, from the crops.
        images, landmarks: (F,) IMAGE and (F, 5, 2) float32 for each photo: its place on the device, once per face, and
            the landmarks of its faces there.
        reductions: how many times smaller the photo of each face is on the device than the original.
        counts, outcomes: see Crops.
        pixels: pixels of all photos on the device.
        held: references that keep the photos in memory.
    """

    rows: list[int] = field(default_factory=list)
    faces: list[NDArray[np.void]] = field(default_factory=lambda: [np.empty(0, FACE)])
    images: list[NDArray[np.void]] = field(default_factory=lambda: [np.empty(0, IMAGE)])
    landmarks: list[NDArray[np.float32]] = field(default_factory=lambda: [np.empty((0, 5, 2), np.float32)])
    reductions: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    pixels: int = 0
    held: list[Any] = field(default_factory=list)

    def add(self, run: PhotoRun, detected: list[Faces | None], rows: NDArray[np.int64], rules: FaceRules) -> list[int]:
        """Select among the faces of a run.

        Args:
            run: a run of photos.
            detected: the faces of each photo, from DetectOnGpu.
            rows: row numbers, by the indices of the run.
            rules: which faces are embedded.
        Returns:
            Indices of the photos that are finished here. The CPU takes those without a confident face, those whose
            faces are small in the views, and those whose faces need a larger photo.
        """
        self.pixels += count_pixels(run)
        self.held.append(run.held)
        done = []
        for i, photo, faces in zip(run.indices, run.photos, detected, strict=True):
            if faces is None:
                continue
            row, rejection = int(rows[i]), reject_photo(rules, faces, rules.find)
            if rejection is None:
                selected = select_faces(rules, faces, *photo.shape)
                if needs_larger_photo(selected.landmarks, photo.reduction) or are_small(selected).any():
                    continue
                self.rows += [row] * len(selected)
                self.faces.append(describe_faces(selected.scale(photo.reduction)))
                self.images.append(_image_records(photo, len(selected)))
                self.landmarks.append(selected.landmarks)
                self.reductions += [photo.reduction] * len(selected)
            else:
                self.outcomes.append(Outcome(row, *rejection))
            self.counts[row] = len(faces)
            done.append(i)
        return done

    def look_again(self, look: LookOnGpu, warp: Warp) -> None:
        """Replace the landmarks of the detected faces by those of a second look; aligned crops keep theirs."""
        faces, images = np.concatenate(self.faces), np.concatenate(self.images)  # (F,) each
        landmarks = np.concatenate(self.landmarks)
        detected = np.flatnonzero(~np.isnan(faces["score"]))
        landmarks[detected] = look(warp, images[detected], landmarks[detected])
        # Coordinates are those of the middles of pixels, see `Faces.scale`.
        reductions = np.array(self.reductions, np.float32)[:, None, None]
        set_landmarks(faces, (landmarks + np.float32(0.5)) * reductions - np.float32(0.5))
        self.faces, self.images, self.landmarks = [faces], [images], [landmarks]


def count_pixels(run: PhotoRun) -> int:
    """Pixels of all photos of a run, on the device."""
    return sum(math.prod(photo.shape) for photo in run.photos)


def _image_records(photo: DevicePhoto, count: int) -> NDArray[Any]:
    """(count,) IMAGE: the record of a photo, repeated for each of its faces."""
    height, width = photo.shape
    return np.array([(photo.address, 3 * width, width, height)] * count, IMAGE)
