"""The work of the stages that look for faces: whole photographs, then the aligned crops of their faces.

A photograph without a face, or with a poor one, is an outcome, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..engines.runner import Runner
from ..images.align import align_crops, template
from ..images.decode import ImageError, Limits, decode_photo
from ..images.faces import Faces, main_face
from ..images.finder import Finder
from ..images.quality import frontal, interocular, sharpness
from ..records import FACE, Batch, Outcome, Photo, Status
from .face_rules import FaceRules

# Photographs are decoded to at least this long a side: enough for the largest view but one, and for most crops.
LONG_SIDE = 640
# Where a face in the reduced photograph is smaller than in its crop, the photograph is decoded again, larger.
_ENOUGH_IOD = 35.0


@dataclass(frozen=True, slots=True)
class DecodePhotos:
    """Encoded files to whole photographs.

    Attributes:
        channel_order: "rgb" or "bgr".
        limits: what is refused before it is decoded.
    """

    channel_order: str
    limits: Limits

    def __call__(self, batch: Batch) -> Batch:
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
        return replace(
            batch, rows=np.array(rows, np.int64), files=tuple(files), photos=tuple(photos), outcomes=tuple(outcomes)
        )


class FindFaces:
    """Whole photographs to the aligned crops of their faces.

    Args:
        runner: of the detector.
        rules: which faces count.
        size: side of the crop, pixels.
        channel_order: of photographs and crops.
        limits: for photographs that are decoded again.
        batch_size: pictures in one call of the detector.
    """

    def __init__(
        self, runner: Runner, rules: FaceRules, size: int, channel_order: str, limits: Limits, batch_size: int = 16
    ) -> None:
        self._runner, self._rules, self._size, self._limits = runner, rules, size, limits
        self._channel_order = channel_order
        self._flip = runner.info.channel_order != channel_order
        self._finder = Finder(self._detect, runner.info.detector, rules.find, min(batch_size, runner.info.profile[2]))

    def _detect(self, canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._runner.infer(np.ascontiguousarray(canvases[..., ::-1]) if self._flip else canvases)

    def __call__(self, batch: Batch) -> Batch:
        whole = [self._is_crop(photo) for photo in batch.photos]
        to_search = [photo.pixels for photo, is_crop in zip(batch.photos, whole, strict=True) if not is_crop]
        searched = iter(self._finder.find(to_search))
        rows: list[int] = []
        crops, faces = [np.empty((0, self._size, self._size, 3), np.uint8)], [np.empty(0, FACE)]
        outcomes, counts = list(batch.outcomes), dict(batch.face_counts)
        for row, data, photo, is_crop in zip(batch.rows.tolist(), batch.files, batch.photos, whole, strict=True):
            if is_crop:
                counts[row] = 1
                found, their_crops = self._as_crop(photo)
            else:
                seen = next(searched)
                counts[row] = len(seen)
                refusal = self._refusal(seen)
                if refusal is not None:
                    outcomes.append(Outcome(row, *refusal))
                    continue
                found, their_crops = self._crops(photo, data, seen)
            good = self._good_enough(found)
            if not good.any():
                outcomes.append(Outcome(row, Status.LOW_QUALITY, self._why_poor(found[0])))
                continue
            rows += [row] * int(good.sum())
            crops.append(their_crops[good])
            faces.append(found[good])
        return replace(
            batch,
            rows=np.array(rows, np.int64),
            files=(),
            photos=(),
            images=np.concatenate(crops),
            faces=np.concatenate(faces),
            face_counts=counts,
            outcomes=tuple(outcomes),
        )

    def _is_crop(self, photo: Photo) -> bool:
        return self._rules.align == "auto" and photo.height == photo.width == self._size

    def _as_crop(self, photo: Photo) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
        """A photograph that is an aligned crop: its face is where the template says, with a score of nobody's."""
        crops = photo.pixels[None]
        landmarks = template(self._size)[None].astype(np.float32)
        boxes = np.array([[0, 0, self._size, self._size]], np.float32)
        return _records(Faces(np.array([np.nan], np.float32), boxes, landmarks), crops), crops

    def _refusal(self, seen: Faces) -> tuple[Status, str] | None:
        """Why none of the faces of a photograph is embedded, whatever its quality."""
        if not len(seen):
            views = len(self._rules.find.views) + len(self._rules.find.retries)
            return Status.NO_FACE, f"no face with a score of {self._rules.threshold} in {views} views"
        if self._rules.policy == "one" and len(seen) > 1:
            return Status.MULTIPLE_FACES, f"{len(seen)} faces, and --faces one was asked for"
        return None

    def _crops(self, photo: Photo, data: bytes, seen: Faces) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
        """The faces that count, the photograph's own first, in pixels of the original, and their crops."""
        first = main_face(seen, *photo.pixels.shape[:2])
        order = [first, *(i for i in range(len(seen)) if i != first)] if self._rules.policy == "all" else [first]
        faces = Faces(seen.scores[order], seen.boxes[order], seen.landmarks[order])
        iod = float(interocular(faces.landmarks).min())
        if photo.reduction > 1 and iod < _ENOUGH_IOD:
            wanted = max(photo.height, photo.width) * min(1.0, _ENOUGH_IOD / max(iod * photo.reduction, 1e-6))
            larger = decode_photo(
                data, long_side=max(1, round(wanted)), channel_order=self._channel_order, limits=self._limits
            )
            faces, photo = faces.scaled(photo.reduction / larger.reduction), larger
        crops = align_crops([photo.pixels] * len(faces), faces.landmarks, size=self._size)
        return _records(faces.scaled(photo.reduction), crops), crops

    def _good_enough(self, found: NDArray[np.void]) -> NDArray[np.bool_]:
        rules = self._rules
        good = (found["iod"] >= rules.min_iod) & (found["sharpness"] >= rules.min_sharpness)
        return np.asarray(good & (found["frontal"] >= rules.min_frontal))

    def _why_poor(self, face: np.void) -> str:
        """Everything that the photograph's own face falls short of."""
        rules = self._rules
        short = [
            f"{what}: {face[name]:.3g}; wanted: {least:g}"
            for name, what, least in (
                ("iod", "pixels between the eyes", rules.min_iod),
                ("sharpness", "sharpness", rules.min_sharpness),
                ("frontal", "frontality", rules.min_frontal),
            )
            if not face[name] >= least
        ]
        return "; ".join(short)


def _records(faces: Faces, crops: NDArray[np.uint8]) -> NDArray[np.void]:
    """(F,) FACE of faces in pixels of the original, and of their crops."""
    found = np.zeros(len(faces), FACE)
    found["box"], found["landmarks"], found["score"] = faces.boxes, faces.landmarks, faces.scores
    found["iod"], found["frontal"] = interocular(faces.landmarks), frontal(faces.landmarks)
    found["sharpness"] = sharpness(crops)
    found["face_index"] = np.arange(len(faces))
    return found
