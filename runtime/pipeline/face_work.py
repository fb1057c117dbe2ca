"""The work of the stages that look for faces: whole photographs, then the aligned crops of their faces.

A photograph without a face, or with a poor one, is an outcome, never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.runner import Runner
from ..faces.align import align_crops
from ..faces.detectors import Faces
from ..faces.finder import Finder
from ..faces.quality import interocular, sharpness
from ..faces.rules import FaceRules
from ..faces.selection import ENOUGH_IOD, LONG_SIDE, chosen, describe, face_of_crop, is_crop, judge, refusal, too_small
from ..images.decode import ImageError, Limits, decode_photo
from ..records import FACE, Crops, Encoded, Outcome, Photo, Photos


@dataclass(frozen=True, slots=True)
class DecodePhotos:
    """Encoded files to whole photographs.

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
        if self._flip:
            import cv2

            tall = canvases.reshape(-1, *canvases.shape[2:])  # (N * H, W, 3); NumPy's reversal takes 40 times as long
            turned: NDArray[Any] = cv2.cvtColor(tall, cv2.COLOR_RGB2BGR)
            canvases = turned.reshape(canvases.shape)
        return self._runner.infer(canvases)

    def __call__(self, batch: Photos) -> Crops:
        whole = [is_crop(self._rules, self._size, photo.height, photo.width) for photo in batch.photos]
        to_search = [photo.pixels for photo, as_crop in zip(batch.photos, whole, strict=True) if not as_crop]
        searched = iter(self._finder.find(to_search))
        outcomes, counts = list(batch.outcomes), dict[int, int]()
        having: list[tuple[int, Photo, Faces]] = []  # row, photograph, the faces that count in its pixels
        for row, data, photo, as_crop in zip(batch.rows.tolist(), batch.files, batch.photos, whole, strict=True):
            seen = face_of_crop(self._size) if as_crop else next(searched)
            counts[row] = len(seen)
            refused = refusal(self._rules, seen)
            if refused is not None:
                outcomes.append(Outcome(row, *refused))
            elif as_crop:
                having.append((row, photo, seen))
            else:
                faces = chosen(self._rules, seen, *photo.pixels.shape[:2])
                try:
                    having.append((row, *self._large_enough(photo, data, faces)))
                except ImageError as err:  # there was memory for the reduced photograph alone
                    outcomes.append(Outcome(row, err.status, err.detail))
        rows, found, crops = self._cut(having)
        good, poor = judge(self._rules, rows, found)
        return Crops(
            rows[good],
            (*outcomes, *poor),
            batch.digests,
            images=crops[good],
            faces=found[good],
            face_counts=counts,
        )

    def _large_enough(self, photo: Photo, data: bytes, faces: Faces) -> tuple[Photo, Faces]:
        """The photograph, decoded again if its faces want to be cut from a larger one."""
        if not too_small(faces, photo.reduction):
            return photo, faces
        iod = float(interocular(faces.landmarks).min()) * photo.reduction
        wanted = max(photo.height, photo.width) * min(1.0, ENOUGH_IOD / max(iod, 1e-6))
        larger = decode_photo(
            data, long_side=max(1, round(wanted)), channel_order=self._channel_order, limits=self._limits
        )
        return larger, faces.scaled(photo.reduction / larger.reduction)

    def _cut(
        self, having: Sequence[tuple[int, Photo, Faces]]
    ) -> tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.uint8]]:
        """(F,) rows and (F,) FACE, in pixels of the originals, and (F, S, S, 3) crops of all faces."""
        photos = [photo for _, photo, _ in having]
        closer = self._finder.look_closer([photo.pixels for photo in photos], [faces for *_, faces in having])
        rows = np.array(
            [row for (row, *_), faces in zip(having, closer, strict=True) for _ in range(len(faces))], np.int64
        )
        described, crops = [np.empty(0, FACE)], [np.empty((0, self._size, self._size, 3), np.uint8)]
        for photo, faces in zip(photos, closer, strict=True):
            crops.append(align_crops([photo.pixels] * len(faces), faces.landmarks, size=self._size))
            described.append(describe(faces.scaled(photo.reduction)))
            described[-1]["sharpness"] = sharpness(crops[-1])
        return rows, np.concatenate(described), np.concatenate(crops)
