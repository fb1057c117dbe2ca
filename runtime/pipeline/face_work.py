"""Decode photos, detect faces, crop and judge them. A photo without a good face is an outcome, never an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import EngineInfo
from ..engines.runner import Runner
from ..faces.align import align_crops
from ..faces.detectors import Faces, decoder_of
from ..faces.finder import Finder
from ..faces.pages import crops_of_photo, join_crops, no_crops
from ..faces.quality import interocular, measure_crops
from ..faces.rules import FaceRules
from ..faces.second_look import MARGIN, SecondLook
from ..faces.selection import (
    ENOUGH_IOD,
    LONG_SIDE,
    describe_faces,
    face_of_crop,
    is_crop,
    judge_faces,
    may_be_crop,
    needs_larger_photo,
    reject_photo,
    select_faces,
)
from ..images.decode import ImageError, Limits, count_pages, decode_photo
from ..images.header import take_page
from ..images.one_photo import each_photo, one_photo
from ..modelspec import ModelSpec
from ..records import FACE, Crops, Encoded, Outcome, PagedFile, Photo, Photos, Status
from .stages import Chain, Stage, StageClock
from .work import Decode, decode_each

DETECTOR_BATCH = 16  # images in one call of the detector
LANDMARK_BATCH = 32  # squares in one call of the landmark network
_MAX_FACES = 10_000  # on all pages of a photo, whose crops are in memory together


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected(Photos):
    """Photos with their detected faces.

    Attributes:
        faces: the faces of each photo, best first, in pixels of the decoded photo; may be empty.
    """

    faces: tuple[Faces, ...]


@dataclass(frozen=True, slots=True)
class DecodePhotos:
    """Decode encoded photos to whole photos.

    Attributes:
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding.
        pages: "main" decodes the main page of each; "all" leaves photos of several pages to `FindFaces`.
    """

    channel_order: str
    limits: Limits
    pages: str = "main"

    def __call__(self, batch: Encoded) -> Photos:
        paged: list[PagedFile] = []
        if self.pages == "all":
            batch, paged = _set_apart_paged(batch, self.limits)
        photos = decode_each(
            batch,
            lambda data: decode_photo(data, long_side=LONG_SIDE, channel_order=self.channel_order, limits=self.limits),
        )
        return replace(photos, paged=tuple(paged))


def _set_apart_paged(batch: Encoded, limits: Limits) -> tuple[Encoded, list[PagedFile]]:
    """A batch without its photos of several pages, and these; a photo over a limit of pages is an outcome."""
    rows, files, paged, outcomes = [], [], [], list(batch.outcomes)
    for row, name, data in zip(batch.rows.tolist(), batch.names_of_rows(), batch.files, strict=True):
        try:
            with one_photo("count the pages of", name):
                pages = count_pages(data, limits)
        except ImageError as err:
            outcomes.append(Outcome(row, err.status, err.detail))
            continue
        if pages > 1:
            paged.append(PagedFile(row, name, data, pages))
        else:
            rows.append(row)
            files.append(data)
    return replace(batch, rows=np.array(rows, np.int64), files=tuple(files), outcomes=tuple(outcomes)), paged


def open_finder(
    detector: Runner, rules: FaceRules, channel_order: str, second_look: SecondLook | None = None
) -> Finder:
    """Make the finder of a detector, for photos in a channel order; a second look confirms its doubtful faces."""
    info = detector.info

    def detect(canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        return detector.infer(canvases if info.channel_order == channel_order else _reverse_channels(canvases))

    batch = min(DETECTOR_BATCH, info.profile[2])
    if second_look is None:
        return Finder(detect, decoder_of(info.decode), rules.find, batch)
    return Finder(detect, decoder_of(info.decode), rules.find.with_second_look(), batch, second_look.doubts)


def open_second_look(landmarks: Runner, channel_order: str) -> SecondLook:
    """Make the second look of a landmark network, for photos in a channel order."""
    info = landmarks.info

    def infer(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        return landmarks.infer(squares if info.channel_order == channel_order else _reverse_channels(squares))

    return SecondLook(infer, info.size, min(LANDMARK_BATCH, info.profile[2]))


def _reverse_channels(canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    tall = canvases.reshape(-1, *canvases.shape[2:])  # (N * H, W, 3); NumPy's reversal takes 40 times as long
    converted: NDArray[Any] = cv2.cvtColor(tall, cv2.COLOR_RGB2BGR)
    return converted.reshape(canvases.shape)


@dataclass(frozen=True, slots=True)
class Detect:
    """Detect the faces of whole photos. No face is selected or rejected here.

    Attributes:
        finder: the finder of the detector, for the channel order of the photos.
        rules: which photos are taken as aligned crops, whose one face has a fixed position.
        size: side of the crop, pixels.
    """

    finder: Finder
    rules: FaceRules
    size: int

    def __call__(self, batch: Photos) -> Detected:
        names, photos = batch.names_of_rows(), batch.photos
        results: list[Faces | ImageError | None] = [None] * len(photos)

        def detect(step: str, find: Callable[[Sequence[NDArray[np.uint8]]], list[Faces]], where: list[int]) -> None:
            found = each_photo(step, find, [photos[i].pixels for i in where], [names[i] for i in where])
            for i, faces in zip(where, found, strict=True):
                results[i] = faces

        square = [i for i, photo in enumerate(photos) if may_be_crop(self.rules, self.size, photo.height, photo.width)]
        detect("look at", self.finder.glance, square)
        for i in square:
            seen = results[i]
            if seen is not None and not isinstance(seen, ImageError):
                results[i] = face_of_crop(self.size) if is_crop(seen, self.size) else None
        detect("detect faces in", self.finder.find, [i for i, result in enumerate(results) if result is None])
        good = [i for i, result in enumerate(results) if isinstance(result, Faces)]
        failed = [
            Outcome(row, result.status, result.detail)
            for row, result in zip(batch.rows.tolist(), results, strict=True)
            if isinstance(result, ImageError)
        ]
        return Detected(
            batch.rows[good],
            (*batch.outcomes, *failed),
            batch.digests,
            batch.notes,
            photos=tuple(batch.photos[i] for i in good),
            files=tuple(batch.files[i] for i in good),
            names=batch.names,
            faces=tuple(result for result in results if isinstance(result, Faces)),
        )


def large_enough(
    photo: Photo, data: bytes, landmarks: NDArray[np.float32], channel_order: str, limits: Limits
) -> Photo:
    """The same photo, decoded again from `data` if its faces need more pixels.

    Args:
        landmarks: (F, 5, 2) float32, pixels of the decoded photo; at least one face.
    Raises:
        ImageError: the photo cannot be decoded again.
    """
    if not needs_larger_photo(landmarks, photo.reduction):
        return photo
    iod = float(interocular(landmarks).min()) * photo.reduction
    long_side = max(photo.height, photo.width) * min(1.0, ENOUGH_IOD / max(iod, 1e-6))
    return decode_photo(data, long_side=max(1, round(long_side)), channel_order=channel_order, limits=limits)


@dataclass(frozen=True, slots=True)
class _Selected:
    """A photo whose faces are to be cropped.

    Attributes:
        row, name: its scan row and its name.
        photo: the photo, large enough for its faces.
        faces: the selected faces, in its pixels.
    """

    row: int
    name: bytes
    photo: Photo
    faces: Faces


@dataclass(frozen=True, slots=True)
class CropFaces:
    """Select faces, look at each once more, crop and align them, and reject poor ones.

    Attributes:
        finder: the finder of the detector, which searches the surroundings of small faces again.
        second_look: finds better landmarks of the selected faces; None to keep those of the detector.
        rules: which faces are embedded.
        size: side of the crop, pixels.
        channel_order: "rgb" or "bgr", for photos and crops.
        limits: size limits of photos that are decoded again.
        margin: side of a crop in sides of an aligned crop: 1, or that of the squares that a landmark network sees.
        max_faces: photos with more faces are refused; None for no limit.
    """

    finder: Finder
    second_look: SecondLook | None
    rules: FaceRules
    size: int
    channel_order: str
    limits: Limits
    margin: float = 1.0
    max_faces: int | None = None

    def __call__(self, batch: Detected) -> Crops:
        outcomes, counts = list(batch.outcomes), dict[int, int]()
        to_crop: list[_Selected] = []
        photos = zip(batch.rows.tolist(), batch.names_of_rows(), batch.files, batch.photos, batch.faces, strict=True)
        for row, name, data, photo, detected in photos:
            counts[row] = len(detected)
            rejection = reject_photo(self.rules, detected, self.finder.rules) or self._too_many(detected)
            if rejection is not None:
                outcomes.append(Outcome(row, *rejection))
                continue
            try:
                with one_photo("select the faces of", name):
                    faces = select_faces(self.rules, detected, *photo.pixels.shape[:2])
                    to_crop.append(_Selected(row, name, *self._large_enough(photo, data, faces)))
            except ImageError as err:
                outcomes.append(Outcome(row, err.status, err.detail))
        rows, records, crops = self._crop(to_crop, outcomes)
        good, rejected = judge_faces(self.rules, rows, records)
        return Crops(
            rows[good],
            (*outcomes, *rejected),
            batch.digests,
            batch.notes,
            images=crops[good],
            faces=records[good],
            face_counts=counts,
        )

    def _too_many(self, faces: Faces) -> tuple[Status, str] | None:
        """Why a photo has too many faces, whose crops are in memory together; None if it has not."""
        if self.max_faces is None or self.rules.policy != "all" or len(faces) <= self.max_faces:
            return None
        return Status.UNSUPPORTED, f"{len(faces)} faces, over the limit of {self.max_faces}"

    def _large_enough(self, photo: Photo, data: bytes, faces: Faces) -> tuple[Photo, Faces]:
        """The photo, or a larger one if its faces need more pixels; and the faces in its pixels."""
        larger = large_enough(photo, data, faces.landmarks, self.channel_order, self.limits)
        return larger, faces if larger is photo else faces.scale(photo.reduction / larger.reduction)

    def _crop(
        self, to_crop: Sequence[_Selected], outcomes: list[Outcome]
    ) -> tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.uint8]]:
        """Crop all faces: (F,) rows, (F,) FACE in pixels of the originals, and (F, S, S, 3) crops.

        Photos that fail are added to the outcomes.
        """
        closer = each_photo("look closer at", self._look_closer, to_crop, [item.name for item in to_crop])
        rows = [np.empty(0, np.int64)]
        records, crops = [np.empty(0, FACE)], [np.empty((0, self.size, self.size, 3), np.uint8)]
        for item, faces in zip(to_crop, closer, strict=True):
            try:
                if isinstance(faces, ImageError):
                    raise faces
                with one_photo("crop the faces of", item.name):
                    photos = [item.photo.pixels] * len(faces)
                    images = align_crops(photos, faces.landmarks, size=self.size, margin=self.margin)
                    described = describe_faces(faces.scale(item.photo.reduction))
                    measure_crops(described, images)
            except ImageError as err:
                outcomes.append(Outcome(item.row, err.status, err.detail))
                continue
            rows.append(np.full(len(faces), item.row, np.int64))
            records.append(described)
            crops.append(images)
        return np.concatenate(rows), np.concatenate(records), np.concatenate(crops)

    def _look_closer(self, items: Sequence[_Selected]) -> list[Faces]:
        """The faces of each photo, after another look at the small ones and a second look at all."""
        photos = [item.photo.pixels for item in items]
        faces = self.finder.look_closer(photos, [item.faces for item in items])
        return faces if self.second_look is None else self.second_look.improve(photos, faces)


@dataclass(frozen=True, slots=True)
class FindFaces:
    """`Detect`, then `CropFaces`: photos to crops. A step between the two, like tracking, belongs here."""

    detect: Detect
    crop: CropFaces

    def __call__(self, batch: Photos) -> Crops:
        crops = self.crop(self.detect(batch))
        if self.crop.rules.pages != "all":
            return crops
        assert crops.faces is not None
        crops.faces["page"] = 1
        return join_crops([crops, *map(self._find_on_pages, batch.paged)]) if batch.paged else crops

    def _find_on_pages(self, photo: PagedFile) -> Crops:
        """The crops of all pages of a photo, or its outcome. One page is in memory at a time."""
        decode = DecodePhotos(self.crop.channel_order, self.crop.limits)
        pages: list[Crops] = []  # their rows are the numbers of the pages
        for page in range(1, photo.pages + 1):
            try:
                with one_photo(f"read page {page} of", photo.name):
                    file = take_page(photo.data, page)
            except ImageError as err:
                pages.append(no_crops(self.crop.size, Outcome(page, err.status, err.detail)))
                continue
            names = [photo.name] * (page + 1)
            pages.append(self.crop(self.detect(decode(Encoded(np.array([page]), files=(file,), names=names)))))
            if sum(sum(crops.face_counts.values()) for crops in pages) > _MAX_FACES:
                excess = f"more than {_MAX_FACES} faces on {page} pages; expected: at most so many in a photo"
                return no_crops(self.crop.size, Outcome(photo.row, Status.UNSUPPORTED, excess))
        return crops_of_photo(photo, join_crops(pages))


def find_faces_with(
    detector: Runner,
    rules: FaceRules,
    model: EngineInfo | ModelSpec,
    limits: Limits,
    landmarks: Runner | None = None,
    max_faces: int | None = None,
) -> FindFaces:
    """Make the work from photos to crops.

    Args:
        detector: the runner of the detector.
        rules: how faces are detected and which are embedded.
        model: the model that takes the crops: it embeds them, or is a landmark network that is calibrated on squares.
        limits: size limits of photos that are decoded again.
        landmarks: the runner of the landmark network; None to crop by the landmarks of the detector.
        max_faces: photos with more faces are refused, if every face is embedded; None for no limit.
    """
    second_look = None if landmarks is None else open_second_look(landmarks, model.channel_order)
    finder = open_finder(detector, rules, model.channel_order, second_look)
    margin = MARGIN if model.task == "landmarks" else 1.0
    crop = CropFaces(finder, second_look, rules, model.size, model.channel_order, limits, margin, max_faces)
    return FindFaces(Detect(finder, rules, model.size), crop)


def crop_stages(
    model: EngineInfo | ModelSpec,
    limits: Limits,
    rules: FaceRules,
    detector: Runner | None,
    landmarks: Runner | None = None,
    *,
    clocks: Mapping[str, StageClock] | None = None,
    ahead: int = 2,
    max_faces: int | None = None,
) -> Chain[Encoded, Crops]:
    """Make the stages from encoded photos to crops, for a run, a query or a calibration.

    Args:
        model: the model that embeds the crops.
        limits: size limits, checked before decoding.
        rules: how faces are detected and which are embedded.
        detector: the runner of the detector; None to take every photo whole.
        landmarks: the runner of the landmark network; None to crop by the landmarks of the detector.
        clocks: "decode" and "detect", with their numbers of threads; None to call the chain without threads.
        ahead: batches that may wait after each stage.
        max_faces: photos with more faces are refused, if every face is embedded; None for no limit.
    """
    clocks = clocks or {name: StageClock(name, 1) for name in ("decode", "detect")}
    if detector is None:
        return Chain.of(Stage(clocks["decode"], Decode(model.size, model.channel_order, limits), ahead))
    decode = Chain.of(Stage(clocks["decode"], DecodePhotos(model.channel_order, limits, rules.pages), ahead))
    find = find_faces_with(detector, rules, model, limits, landmarks, max_faces)
    return decode.then(Stage(clocks["detect"], find, ahead))
