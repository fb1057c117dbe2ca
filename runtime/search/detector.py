"""Detect the faces in photos."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..engines.backends import backend_of, open_runner
from ..engines.engine import Engine
from ..engines.runner import Runner
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..pipeline.face_work import DETECTOR_BATCH, LANDMARK_BATCH, crop_stages
from ..pipeline.work import Read
from ..records import Batch, Crops, Encoded, Status
from ..retries import retried
from ..sources.source import PhotoList
from ..text import utf8
from .embedder import UNLIMITED_BYTES, PhotoInput, name_of, steady
from .faces import DetectedFace, detected_face

_BATCH_PHOTOS = 16
_CROP_SIDE = 112  # pixels; sharpness is measured on a crop of this size


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
        self,
        engine: Engine,
        *,
        landmarks: Engine | None = None,
        min_score: float,
        limits: Limits | None = None,
        max_faces: int | None = None,
    ) -> None:
        """Store the options.

        Args:
            engine: the engine of a face detector.
            landmarks: the engine of a landmark network; None for the landmarks of the detector.
            min_score: minimum detection confidence, 0 to 1.
            limits: larger photos are refused before decoding.
            max_faces: photos with more faces are refused; None for no limit.
        Raises:
            ConfigError: the engine is not a detector's, or the score is out of range.
        """
        if not engine.info.detects:
            raise ConfigError(f"{engine} is an engine of {engine.info.model}; expected: an engine of a face detector")
        self._engine, self._landmarks, self._limits = engine, landmarks, limits or Limits()
        self._rules = FaceRules("detect", "all", min_score, min_iod=0.0, max_fit=1.0)
        self._max_faces = max_faces
        self._lock, self._owned = threading.Lock(), ExitStack()
        self._stages: dict[int, Callable[[Encoded], Crops]] = {}  # by the threads of one engine call; 0 for all cores

    def detect(self, photos: Sequence[PhotoInput], *, one_core: bool = False) -> list[Detection]:
        """Detect the faces in each photo. A photo that cannot be read gets an error and does not stop the others.

        Args:
            photos: paths, encoded bytes or arrays; see `PhotoInput`.
            one_core: use one core, because other threads detect at the same time.
        Raises:
            EngineError, MissingDependencyError: the engine does not load.
            MachineError: a photo cannot be read because of the disk or the memory of the machine.
        """
        names = [name_of(photo, number) for number, photo in enumerate(photos)]
        read, stages = Read(PhotoList(photos, max_bytes=self._limits.max_bytes)), self._load(1 if one_core else 0)
        detections: list[Detection] = []
        for start in range(0, len(photos), _BATCH_PHOTOS):
            numbers = np.arange(start, min(start + _BATCH_PHOTOS, len(photos)))
            crops = retried(partial(_read_and_detect, read, stages, Batch(numbers)))
            errors = {o.row: f"{o.status.label}: {o.detail}" for o in crops.outcomes if o.status != Status.NO_FACE}
            faces: dict[int, list[DetectedFace]] = {number: [] for number in numbers.tolist()}
            assert crops.faces is not None
            for row, face in zip(crops.rows.tolist(), crops.faces, strict=True):
                faces[row].append(detected_face(face))
            detections += [Detection(names[i], tuple(faces[i]), errors.get(i, "")) for i in numbers.tolist()]
        return detections

    def _load(self, threads: int) -> Callable[[Encoded], Crops]:
        on_gpu = backend_of(self._engine.info.backend).on_gpu
        threads = 0 if on_gpu else threads
        with self._lock:
            if threads not in self._stages:
                detector = self._open(self._engine, DETECTOR_BATCH, threads)
                landmarks = self._open(self._landmarks, LANDMARK_BATCH, threads) if self._landmarks else None
                crop = replace(detector.info, size=_CROP_SIDE)
                limits = replace(self._limits, max_bytes=UNLIMITED_BYTES)
                self._stages[threads] = crop_stages(
                    crop, limits, self._rules, detector, landmarks, max_faces=self._max_faces
                )
            return self._stages[threads]

    def _open(self, engine: Engine, batch: int, threads: int) -> Runner:
        return steady(self._owned.enter_context(open_runner(engine, threads=threads)), batch)

    def close(self) -> None:
        """Release the engine."""
        with self._lock:
            self._stages.clear()
            self._owned.close()

    def __enter__(self) -> PhotoDetector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _read_and_detect(read: Read, stages: Callable[[Encoded], Crops], batch: Batch) -> Crops:
    return stages(read(batch))
