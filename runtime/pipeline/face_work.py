"""The work of the stages that look for faces: decode photos, detect faces, crop and judge them.

A photo without a face, or with a poor one, is an outcome, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import EngineInfo
from ..engines.runner import Runner
from ..faces.align import align_crops
from ..faces.detectors import Faces, decoder_of
from ..faces.finder import Finder
from ..faces.quality import interocular, sharpness
from ..faces.rules import FaceRules
from ..faces.selection import ENOUGH_IOD, LONG_SIDE, chosen, describe, face_of_crop, is_crop, judge, refusal, too_small
from ..images.decode import ImageError, Limits, decode_photo
from ..modelspec import ModelSpec
from ..records import FACE, Crops, Encoded, Outcome, Photo, Photos
from .stages import Chain, Stage, StageClock
from .work import Decode

_BATCH_PICTURES = 16  # in one call of the detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected(Photos):
    """Photos with the faces that a detector found in them.

    Attributes:
        faces: n, best face first, in pixels of the decoded photo; without a face an empty one.
    """

    faces: tuple[Faces, ...]


@dataclass(frozen=True, slots=True)
class DecodePhotos:
    """Encoded photos to whole photos.

    Attributes:
        channel_order: "rgb" or "bgr".
        limits: what is refused before it is decoded.
    """

    channel_order: str
    limits: Limits

    def __call__(self, batch: Encoded) -> Photos:
        rows, files, photos, outcomes = [], [], [], list(batch.outcomes)
        for row, data in zip(batch.rows.tolist(), batch.files, strict=True):
            try:
                photos.append(
                    decode_photo(data, long_side=LONG_SIDE, channel_order=self.channel_order, limits=self.limits)
                )
            except ImageError as err:
                outcomes.append(Outcome(row, err.status, err.detail))
            else:
                rows.append(row)
                files.append(data)
        return Photos(
            np.array(rows, np.int64), tuple(outcomes), batch.digests, photos=tuple(photos), files=tuple(files)
        )


def open_finder(detector: Runner, rules: FaceRules, channel_order: str) -> Finder:
    """The finder of a detector, for photos of a channel order."""
    info = detector.info

    def detect(canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        return detector.infer(canvases if info.channel_order == channel_order else _reverse_channels(canvases))

    return Finder(detect, decoder_of(info.decode), rules.find, min(_BATCH_PICTURES, info.profile[2]))


def _reverse_channels(canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    tall = canvases.reshape(-1, *canvases.shape[2:])  # (N * H, W, 3); NumPy's reversal takes 40 times as long
    turned: NDArray[Any] = cv2.cvtColor(tall, cv2.COLOR_RGB2BGR)
    return turned.reshape(canvases.shape)


@dataclass(frozen=True, slots=True)
class Detect:
    """Whole photos to the faces in them. Nothing is chosen or refused here.

    Attributes:
        finder: of the detector, for the photos' channel order.
        rules: which photos are taken as aligned crops, of one face at a known place.
        size: side of the crop, pixels.
    """

    finder: Finder
    rules: FaceRules
    size: int

    def __call__(self, batch: Photos) -> Detected:
        whole = [is_crop(self.rules, self.size, photo.height, photo.width) for photo in batch.photos]
        to_search = [photo.pixels for photo, as_crop in zip(batch.photos, whole, strict=True) if not as_crop]
        searched = iter(self.finder.find(to_search))
        faces = tuple(face_of_crop(self.size) if as_crop else next(searched) for as_crop in whole)
        return Detected(batch.rows, batch.outcomes, batch.digests, photos=batch.photos, files=batch.files, faces=faces)


@dataclass(frozen=True, slots=True)
class CropFaces:
    """Photos and their faces to the aligned crops of the faces that count and are good enough.

    Attributes:
        finder: of the detector; small faces are looked at once more, from near.
        rules: which faces count.
        size: side of the crop, pixels.
        channel_order: of photos and crops.
        limits: for photos that are decoded again.
    """

    finder: Finder
    rules: FaceRules
    size: int
    channel_order: str
    limits: Limits

    def __call__(self, batch: Detected) -> Crops:
        outcomes, counts = list(batch.outcomes), dict[int, int]()
        to_crop: list[tuple[int, Photo, Faces]] = []  # row, photo, the faces that count in its pixels
        photos = zip(batch.rows.tolist(), batch.files, batch.photos, batch.faces, strict=True)
        for row, data, photo, seen in photos:
            counts[row] = len(seen)
            refused = refusal(self.rules, seen)
            if refused is not None:
                outcomes.append(Outcome(row, *refused))
                continue
            faces = chosen(self.rules, seen, *photo.pixels.shape[:2])
            try:
                to_crop.append((row, *self._large_enough(photo, data, faces)))
            except ImageError as err:  # there was memory for the reduced photo alone
                outcomes.append(Outcome(row, err.status, err.detail))
        rows, described, crops = self._cut(to_crop)
        good, poor = judge(self.rules, rows, described)
        return Crops(
            rows[good],
            (*outcomes, *poor),
            batch.digests,
            images=crops[good],
            faces=described[good],
            face_counts=counts,
        )

    def _large_enough(self, photo: Photo, data: bytes, faces: Faces) -> tuple[Photo, Faces]:
        """The photo, decoded again if its faces are to be cut from a larger one."""
        if not too_small(faces, photo.reduction):
            return photo, faces
        iod = float(interocular(faces.landmarks).min()) * photo.reduction
        long_side = max(photo.height, photo.width) * min(1.0, ENOUGH_IOD / max(iod, 1e-6))
        larger = decode_photo(
            data, long_side=max(1, round(long_side)), channel_order=self.channel_order, limits=self.limits
        )
        return larger, faces.scaled(photo.reduction / larger.reduction)

    def _cut(
        self, to_crop: Sequence[tuple[int, Photo, Faces]]
    ) -> tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.uint8]]:
        """(F,) rows and (F,) FACE, in pixels of the originals, and (F, S, S, 3) crops of all faces."""
        photos = [photo for _, photo, _ in to_crop]
        closer = self.finder.look_closer([photo.pixels for photo in photos], [faces for *_, faces in to_crop])
        rows = np.array(
            [row for (row, *_), faces in zip(to_crop, closer, strict=True) for _ in range(len(faces))], np.int64
        )
        described, crops = [np.empty(0, FACE)], [np.empty((0, self.size, self.size, 3), np.uint8)]
        for photo, faces in zip(photos, closer, strict=True):
            crops.append(align_crops([photo.pixels] * len(faces), faces.landmarks, size=self.size))
            described.append(describe(faces.scaled(photo.reduction)))
            described[-1]["sharpness"] = sharpness(crops[-1])
        return rows, np.concatenate(described), np.concatenate(crops)


@dataclass(frozen=True, slots=True)
class FindFaces:
    """`Detect`, then `CropFaces`: photos to crops. What is to happen between the two, such as tracking, goes here."""

    detect: Detect
    crop: CropFaces

    def __call__(self, batch: Photos) -> Crops:
        return self.crop(self.detect(batch))


def find_faces_with(detector: Runner, rules: FaceRules, model: EngineInfo | ModelSpec, limits: Limits) -> FindFaces:
    """The work from photos to crops.

    Args:
        detector: runs the detector.
        rules: how faces are looked for and which count.
        model: that the crops are for.
        limits: for photos that are decoded again.
    """
    finder = open_finder(detector, rules, model.channel_order)
    crop = CropFaces(finder, rules, model.size, model.channel_order, limits)
    return FindFaces(Detect(finder, rules, model.size), crop)


def crop_stages(
    model: EngineInfo | ModelSpec,
    limits: Limits,
    rules: FaceRules,
    detector: Runner | None,
    *,
    clocks: Mapping[str, StageClock] | None = None,
    ahead: int = 2,
) -> Chain[Encoded, Crops]:
    """The stages from encoded photos to crops, for a run, a query and a calibration alike.

    Args:
        model: that the crops are for.
        limits: what is refused before it is decoded.
        rules: how faces are looked for and which count.
        detector: runs the detector; None to take every photo whole.
        clocks: "decode" and "detect", with their numbers of threads; None where the chain is called, without threads.
        ahead: batches that may wait behind each stage.
    """
    clocks = clocks or {name: StageClock(name, 1) for name in ("decode", "detect")}
    if detector is None:
        return Chain.of(Stage(clocks["decode"], Decode(model.size, model.channel_order, limits), ahead))
    decode = Chain.of(Stage(clocks["decode"], DecodePhotos(model.channel_order, limits), ahead))
    return decode.then(Stage(clocks["detect"], find_faces_with(detector, rules, model, limits), ahead))
