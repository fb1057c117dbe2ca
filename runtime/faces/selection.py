"""Select faces to embed, describe them, reject poor ones. Shared by the CPU and GPU paths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..records import FACE, Outcome, Status
from .align import template
from .detectors import Faces, largest_face, main_face
from .finder import FindRules
from .quality import fit, frontal, interocular
from .rules import FaceRules

# Minimum long side of decoded photos, pixels: enough for all views but the largest, and for most crops.
LONG_SIDE = 640
# Minimum distance between the eyes, pixels. If a face in a reduced photo has less, the photo is decoded again, larger.
ENOUGH_IOD = 35.0
# Mean distance of the landmarks of an aligned crop from the template, at most, in distances between the eyes.
_MAX_OFF = 0.31


def may_be_crop(rules: FaceRules, size: int, height: int, width: int) -> bool:
    """Whether a photo of this height and width may be an aligned crop of side `size`."""
    return rules.align == "auto" and height == width == size


def is_crop(faces: Faces, size: int) -> bool:
    """Whether a photo of the size of a crop is one, and no picture of somebody in a square.

    A face stands on the template, or a detector sees none: crops that are blurred or covered are crops too. The
    landmarks of 800 crops were at most 0.29 distances between the eyes off, on average over a face; those of 99 % of
    400 photos from LFW, shrunk to 112x112, at least 0.32.

    Args:
        faces: the faces of the photo, in its own pixels.
        size: side of the crop, pixels.
    """
    if not len(faces):
        return True
    places = template(size)  # (5, 2)
    off = np.linalg.norm(faces.landmarks - places, axis=2).mean(axis=1)  # (F,)
    return float(off.min()) < _MAX_OFF * float(interocular(places[None])[0])


def face_of_crop(size: int) -> Faces:
    """The one face of an aligned crop: at the place of the template, without a score (NaN)."""
    box, landmarks = np.array([[0, 0, size, size]], np.float32), template(size)[None].astype(np.float32)
    return Faces(np.array([np.nan], np.float32), box, landmarks, np.array([np.inf], np.float32))


def reject_photo(rules: FaceRules, faces: Faces, find: FindRules) -> tuple[Status, str] | None:
    """The outcome of a photo with too few or too many faces; None for a good number.

    Args:
        rules: which numbers are good.
        faces: the faces of the photo.
        find: how the photo was searched.
    """
    if not len(faces):
        return Status.NO_FACE, find.explain_no_face()
    if rules.policy == "one" and len(faces) > 1:
        return Status.MULTIPLE_FACES, f"{len(faces)} faces; expected: 1, because of --faces one"
    return None


def select_faces(rules: FaceRules, faces: Faces, height: int, width: int) -> Faces:
    """Select the faces to embed: all of them, the main face first, or the largest.

    Args:
        rules: which faces are embedded.
        faces: at least one.
        height, width: size of the photo, in the pixels of the faces.
    """
    if rules.policy != "all":
        return faces.take([largest_face(faces, height, width)])
    first = main_face(faces, height, width)
    return faces.take([first, *(i for i in range(len(faces)) if i != first)])


def needs_larger_photo(landmarks: NDArray[np.float32], reduction: int) -> bool:
    """Whether a reduced photo must be decoded again, larger, to crop its faces.

    Args:
        landmarks: (F, 5, 2) float32, pixels of the reduced photo.
        reduction: how many pixels of the original a pixel of the photo covers, in each direction.
    """
    return reduction > 1 and float(interocular(landmarks).min()) < ENOUGH_IOD


def describe_faces(faces: Faces) -> NDArray[np.void]:
    """(F,) FACE of the faces of a photo, in pixels of the original. What crops say of it is 0 until then."""
    records = np.zeros(len(faces), FACE)
    records["box"], records["score"] = faces.boxes, faces.scores
    records["face_index"] = np.arange(len(faces))
    set_landmarks(records, faces.landmarks)
    return records


def set_landmarks(records: NDArray[np.void], landmarks: NDArray[np.float32]) -> None:
    """Set the landmarks of faces, and what they say about the quality.

    Args:
        records: (F,) FACE, which is changed.
        landmarks: (F, 5, 2), pixels of the original.
    """
    records["landmarks"] = landmarks
    records["iod"], records["frontal"], records["fit"] = interocular(landmarks), frontal(landmarks), fit(landmarks)


def judge_faces(
    rules: FaceRules, rows: NDArray[np.int64], faces: NDArray[np.void]
) -> tuple[NDArray[np.bool_], list[Outcome]]:
    """Judge the quality of faces.

    Args:
        rules: the minimum quality.
        rows: (F,) rows of the photos. The faces of a photo are consecutive, its main face first.
        faces: (F,) FACE.
    Returns:
        (F,) True for good faces; and the outcomes of photos without a good face.
    """
    good = (faces["iod"] >= rules.min_iod) & (faces["sharpness"] >= rules.min_sharpness)
    good &= (faces["brightness"] >= rules.min_brightness) & (faces["contrast"] >= rules.min_contrast)
    good &= (faces["frontal"] >= rules.min_frontal) & (faces["fit"] <= rules.fit_limit)
    photos, first = np.unique(rows, return_index=True)
    poor = ~np.isin(photos, rows[good])
    outcomes = [
        Outcome(int(row), Status.LOW_QUALITY, _describe_defects(rules, faces[i]))
        for row, i in zip(photos[poor], first[poor], strict=True)
    ]
    return np.asarray(good, np.bool_), outcomes


def _describe_defects(rules: FaceRules, face: np.void) -> str:
    """Name each quality of a face that is beyond its limit."""
    defects = [
        f"{label}: {face[name]:.3g}; expected: at least {minimum:g}"
        for name, label, minimum in (
            ("iod", "pixels between the eyes", rules.min_iod),
            ("sharpness", "sharpness", rules.min_sharpness),
            ("brightness", "brightness", rules.min_brightness),
            ("contrast", "contrast", rules.min_contrast),
            ("frontal", "frontality", rules.min_frontal),
        )
        if not face[name] >= minimum
    ]
    if not face["fit"] <= rules.fit_limit:
        defects.append(f"fit of the landmarks: {face['fit']:.3g}; expected: at most {rules.fit_limit:g}")
    return "; ".join(defects)
