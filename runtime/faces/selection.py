"""Which of the faces that were found count, what is recorded of them, which are too poor: wherever they were found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..records import FACE, Outcome, Status
from .align import template
from .detectors import Faces, main_face
from .quality import frontal, interocular
from .rules import FaceRules

# Photographs are decoded to at least this long a side: enough for the largest view but one, and for most crops.
LONG_SIDE = 640
# Where a face in the reduced photograph is smaller than in its crop, the photograph is decoded again, larger.
ENOUGH_IOD = 35.0


def is_crop(rules: FaceRules, size: int, height: int, width: int) -> bool:
    """Whether a photograph of this height and width is taken as an aligned crop of side `size`."""
    return rules.align == "auto" and height == width == size


def face_of_crop(size: int) -> Faces:
    """The one face of an aligned crop: where the template says, with a score of nobody's."""
    box, landmarks = np.array([[0, 0, size, size]], np.float32), template(size)[None].astype(np.float32)
    return Faces(np.array([np.nan], np.float32), box, landmarks, np.array([np.inf], np.float32))


def refusal(rules: FaceRules, seen: Faces) -> tuple[Status, str] | None:
    """Why none of the faces of a photograph is embedded, whatever its quality."""
    if not len(seen):
        return Status.NO_FACE, f"no face with a score of {rules.threshold} in {rules.find.looks} views"
    if rules.policy == "one" and len(seen) > 1:
        return Status.MULTIPLE_FACES, f"{len(seen)} faces, and --faces one was asked for"
    return None


def chosen(rules: FaceRules, seen: Faces, height: int, width: int) -> Faces:
    """The faces that count, the photograph's own first.

    Args:
        rules: which count.
        seen: at least one.
        height, width: of the photograph, in the pixels of the faces.
    """
    first = main_face(seen, height, width)
    order = [first, *(i for i in range(len(seen)) if i != first)] if rules.policy == "all" else [first]
    return seen.some(order)


def too_small(faces: Faces, reduction: int) -> bool:
    """Whether faces in a photograph that was reduced want to be cut from a larger one."""
    return reduction > 1 and float(interocular(faces.landmarks).min()) < ENOUGH_IOD


def describe(faces: Faces) -> NDArray[np.void]:
    """(F,) FACE of the faces of a photograph, in pixels of the original; sharpness, which their crops tell, is 0."""
    found = np.zeros(len(faces), FACE)
    found["box"], found["landmarks"], found["score"] = faces.boxes, faces.landmarks, faces.scores
    found["iod"], found["frontal"] = interocular(faces.landmarks), frontal(faces.landmarks)
    found["face_index"] = np.arange(len(faces))
    return found


def judge(
    rules: FaceRules, rows: NDArray[np.int64], faces: NDArray[np.void]
) -> tuple[NDArray[np.bool_], list[Outcome]]:
    """Which faces are good enough.

    Args:
        rules: how good they have to be.
        rows: (F,) of the photographs; each has its faces in one place, its own first.
        faces: (F,) FACE.
    Returns:
        (F,) True for the good ones; and the outcomes of photographs that have none.
    """
    good = (faces["iod"] >= rules.min_iod) & (faces["sharpness"] >= rules.min_sharpness)
    good &= faces["frontal"] >= rules.min_frontal
    photographs, first = np.unique(rows, return_index=True)
    poor = ~np.isin(photographs, rows[good])
    outcomes = [
        Outcome(int(row), Status.LOW_QUALITY, _why_poor(rules, faces[i]))
        for row, i in zip(photographs[poor], first[poor], strict=True)
    ]
    return np.asarray(good, np.bool_), outcomes


def _why_poor(rules: FaceRules, face: np.void) -> str:
    """Everything that a face falls short of."""
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
