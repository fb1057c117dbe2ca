"""Detect the faces in photos."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..engines.backends import open_runner
from ..engines.engine import Engine
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..pipeline.face_work import crop_stages
from ..pipeline.work import Read
from ..records import Batch, Box, Crops, Encoded, FacePlace, Status
from ..retries import retried
from ..sources.source import PhotoList
from ..text import utf8
from .embedder import UNLIMITED_BYTES, PhotoInput, name_of

_BATCH_PHOTOS = 16
_CROP_SIDE = 112  # pixels; sharpness is measured on a crop of this size


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face in a photo. All lengths are in pixels of the upright photo.

    Attributes:
        index: rank among the faces of the photo; 0 is the main face, which is large and near the middle.
        box: left, top, right, bottom.
        landmarks: five (x, y): eyes, nose, mouth corners, left first as seen in the photo.
        score: detection confidence, 0 to 1.
        iod: distance between the eyes.
        sharpness: higher is sharper; see docs/faces.md.
        brightness, contrast: mean and range of the grey levels, 0 to 255.
        frontal: 1 for a frontal face, 0 for a profile.
        fit: distance of the landmarks from the template in distances between the eyes: 0.1 for most faces, 0.2 for
            profiles, more where the landmarks are wrong.
    """

    index: int
    box: Box
    landmarks: tuple[tuple[float, float], ...]
    score: float
    iod: float
    sharpness: float
    brightness: float
    contrast: float
    frontal: float
    fit: float

    def to_dict(self) -> dict[str, Any]:
        """The face for JSON."""
        return {
            **FacePlace(self.index, self.box).to_dict(),
            "landmarks": [[round(x, 1), round(y, 1)] for x, y in self.landmarks],
            "score": round(self.score, 4),
            "iod": round(self.iod, 1),
            "sharpness": round(self.sharpness, 1),
            "brightness": round(self.brightness, 1),
            "contrast": round(self.contrast, 1),
            "frontal": round(self.frontal, 4),
            "fit": round(self.fit, 4),
        }


@dataclass(frozen=True, slots=True)
class Detection:
    """The faces in one photo.

    Attributes:
        photo: its path; for bytes and arrays `<photo N>`, N counted from 0 in the call.
        faces: the main face first; empty if the photo has none.
        error: why the photo could not be read; empty if it was.
    """

    photo: str
    faces: tuple[DetectedFace, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The faces for JSON."""
        error = {"error": utf8(self.error)} if self.error else {}
        return {"path": utf8(self.photo), **error, "faces": [face.to_dict() for face in self.faces]}


class PhotoDetector:
    """Detects faces in photos, any number at a time, from any number of threads. Owned by `with`.

    The first photo loads the engine; it stays loaded until `close`.
    """

    def __init__(
        self, engine: Engine, *, landmarks: Engine | None = None, min_score: float, limits: Limits | None = None
    ) -> None:
        """Store the options.

        Args:
            engine: the engine of a face detector.
            landmarks: the engine of a landmark network; None for the landmarks of the detector.
            min_score: minimum detection confidence, 0 to 1.
            limits: larger photos are refused before decoding.
        Raises:
            ConfigError: the engine is not a detector's, or the score is out of range.
        """
        if not engine.info.detects:
            raise ConfigError(f"{engine} is an engine of {engine.info.model}; expected: an engine of a face detector")
        self._engine, self._landmarks, self._limits = engine, landmarks, limits or Limits()
        self._rules = FaceRules("detect", "all", min_score, min_iod=0.0, max_fit=1.0)
        self._lock, self._owned = threading.Lock(), ExitStack()
        self._stages: Callable[[Encoded], Crops] | None = None

    def detect(self, photos: Sequence[PhotoInput]) -> list[Detection]:
        """Detect the faces in each photo. A photo that cannot be read gets an error and does not stop the others.

        Args:
            photos: paths, encoded bytes or arrays; see `PhotoInput`.
        Raises:
            EngineError, MissingDependencyError: the engine does not load.
            MachineError: a photo cannot be read because of the disk or the memory of the machine.
        """
        names = [name_of(photo, number) for number, photo in enumerate(photos)]
        read, stages = Read(PhotoList(photos, max_bytes=self._limits.max_bytes)), self._load()
        detections: list[Detection] = []
        for start in range(0, len(photos), _BATCH_PHOTOS):
            numbers = np.arange(start, min(start + _BATCH_PHOTOS, len(photos)))
            crops = retried(partial(_read_and_detect, read, stages, Batch(numbers)))
            errors = {o.row: f"{o.status.label}: {o.detail}" for o in crops.outcomes if o.status != Status.NO_FACE}
            faces: dict[int, list[DetectedFace]] = {number: [] for number in numbers.tolist()}
            assert crops.faces is not None
            for row, face in zip(crops.rows.tolist(), crops.faces, strict=True):
                faces[row].append(_face(face))
            detections += [Detection(names[i], tuple(faces[i]), errors.get(i, "")) for i in numbers.tolist()]
        return detections

    def _load(self) -> Callable[[Encoded], Crops]:
        with self._lock:
            if self._stages is None:
                own = self._owned.enter_context
                runner = own(open_runner(self._engine))
                landmarks = own(open_runner(self._landmarks)) if self._landmarks else None
                crop = replace(runner.info, size=_CROP_SIDE)
                limits = replace(self._limits, max_bytes=UNLIMITED_BYTES)
                self._stages = crop_stages(crop, limits, self._rules, runner, landmarks)
            return self._stages

    def close(self) -> None:
        """Release the engine."""
        with self._lock:
            self._stages = None
            self._owned.close()

    def __enter__(self) -> PhotoDetector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _read_and_detect(read: Read, stages: Callable[[Encoded], Crops], batch: Batch) -> Crops:
    return stages(read(batch))


def _face(face: np.void) -> DetectedFace:
    """Convert a record of dtype FACE."""
    return DetectedFace(
        index=int(face["face_index"]),
        box=tuple(face["box"].tolist()),
        landmarks=tuple((x, y) for x, y in face["landmarks"].tolist()),
        score=float(face["score"]),
        iod=float(face["iod"]),
        sharpness=float(face["sharpness"]),
        brightness=float(face["brightness"]),
        contrast=float(face["contrast"]),
        frontal=float(face["frontal"]),
        fit=float(face["fit"]),
    )
