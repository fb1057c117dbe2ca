"""The faces of a photo for users: where they are, what was measured, and their embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Box, Embedded, FacePlace
from ..text import utf8


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


def detected_face(face: np.void) -> DetectedFace:
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


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFace:
    """A face and its embedding.

    Attributes:
        vector: (D,) float32, length 1.
        face: where the face is, and what was measured; None if the photo was taken whole.
        attributes: age and gender as far as they were asked for, as `to_dict` returns them.
    """

    vector: NDArray[np.float32] = field(repr=False)
    face: DetectedFace | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The face for JSON."""
        return {**(self.face.to_dict() if self.face else {}), **self.attributes, "vector": self.vector.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class PhotoFaces:
    """The embedded faces of one photo, or the reason why it has none.

    Attributes:
        photo: its path; for bytes and arrays `<photo N>`, N counted from 0 in the call.
        faces: the main face first.
        error: an outcome such as `no-face`, a colon and the detail; empty if a face was embedded.
        detected: number of faces in the photo; None if faces were not detected.
    """

    photo: str
    faces: tuple[EmbeddedFace, ...] = ()
    error: str = ""
    detected: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The faces for JSON."""
        error = {"error": utf8(self.error)} if self.error else {}
        return {"path": utf8(self.photo), **error, "faces": [face.to_dict() for face in self.faces]}


def embedded_face(batch: Embedded, i: int) -> EmbeddedFace:
    """The face of entry `i` of a batch."""
    face = None if batch.faces is None else detected_face(batch.faces[i])
    read = {} if batch.attributes is None else _attributes(batch.attributes[i])
    return EmbeddedFace(batch.embeddings[i], face, read)


def _attributes(entry: np.void) -> dict[str, Any]:
    """An entry of ATTRIBUTES for JSON: what was read of it."""
    read: dict[str, Any] = {}
    if not np.isnan(entry["age"]):
        read |= {name: round(float(entry[name]), 1) for name in ("age", "age_low", "age_high")}
    if entry["gender"]:
        read |= {"gender": entry["gender"].decode("ascii"), "gender_score": round(float(entry["gender_score"]), 4)}
    return read
