"""Photographs of any sizes to faces: views of each at several sizes, in batches of one shape, until a face is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import STRIDES, Faces, find_faces, iou

Detect = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_STEP = STRIDES[-1]
_SAME_FACE = 0.4  # intersection over union of one face in two views
_VOTE = 0.6


@dataclass(frozen=True, slots=True)
class View:
    """A photograph made ready for the detector.

    Attributes:
        long_side: of the photograph in it, pixels.
        border: empty space on every side, as a part of the long side: a face that fills the photograph needs it.
    """

    long_side: int
    border: float = 0.0


@dataclass(frozen=True, slots=True)
class FindRules:
    """How faces are looked for; part of the embedding contract.

    Attributes:
        views: always looked at; what they agree on is averaged, which steadies the landmarks.
        retries: looked at one after another while nothing has been found.
        threshold: lowest score of a face.
    """

    views: tuple[View, ...] = (View(160), View(224))
    retries: tuple[View, ...] = (View(160, 0.5), View(448), View(320, 0.25), View(960))
    threshold: float = 0.6


class Finder:
    """Finds the faces of photographs.

    Args:
        detect: (n, H, W, 3) uint8, sides multiples of 32 -> (n, P, 15) float32; at most `batch` at once.
        family: of the detector: "yunet" or "scrfd".
        rules: how to look.
        batch: pictures in one call.
    """

    def __init__(self, detect: Detect, family: str, rules: FindRules, batch: int) -> None:
        self._detect, self._family, self._rules, self._batch = detect, family, rules, batch

    def find(self, photos: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """The faces of each photograph, best first, in its own pixels; empty where there are none.

        Args:
            photos: N arrays, (H, W, 3) uint8, in the detector's channel order.
        """
        seen = [self._look(photos, view) for view in self._rules.views]
        found = [merge(views) for views in zip(*seen, strict=True)]
        for view in self._rules.retries:
            missing = [i for i, faces in enumerate(found) if not len(faces)]
            if not missing:
                break
            for i, faces in zip(missing, self._look([photos[i] for i in missing], view), strict=True):
                found[i] = faces
        return found

    def _look(self, photos: Sequence[NDArray[np.uint8]], view: View) -> list[Faces]:
        """One view of each."""
        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, photo in enumerate(photos):
            shapes[canvas_shape(photo.shape[0], photo.shape[1], view)].append(i)
        found: dict[int, Faces] = {}
        for (height, width), members in shapes.items():
            for start in range(0, len(members), self._batch):
                part = members[start : start + self._batch]
                canvases = np.zeros((len(part), height, width, 3), np.uint8)  # (n, H, W, 3)
                places = [draw(photos[i], view, canvas) for i, canvas in zip(part, canvases, strict=True)]
                faces = find_faces(
                    self._detect(canvases),
                    family=self._family,
                    height=height,
                    width=width,
                    threshold=self._rules.threshold,
                    vote=_VOTE,
                )
                for i, one, (factor, shift) in zip(part, faces, places, strict=True):
                    found[i] = one.scaled(1 / factor, (-shift, -shift))
        return [found[i] for i in range(len(photos))]


def canvas_shape(height: int, width: int, view: View) -> tuple[int, int]:
    """(H, W) of the smallest canvas that a view of a photograph fits, multiples of 32."""
    factor = view.long_side / max(height, width)
    space = 2 * view.border * view.long_side
    rows, columns = (max(1, round(side * factor)) + space for side in (height, width))
    return _STEP * int(np.ceil(rows / _STEP)), _STEP * int(np.ceil(columns / _STEP))


def draw(photo: NDArray[np.uint8], view: View, canvas: NDArray[np.uint8]) -> tuple[float, int]:
    """Put a view of a photograph on a black canvas.

    Returns:
        How many times larger the photograph is there, and how many pixels from the left and the top it begins.
    """
    import cv2

    height, width = photo.shape[:2]
    factor = view.long_side / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shift = round(view.border * view.long_side)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    canvas[shift : shift + size[0], shift : shift + size[1]] = cv2.resize(photo, size[::-1], interpolation=how)
    return factor, shift


def merge(views: Sequence[Faces]) -> Faces:
    """Faces of several views of one photograph: those that views agree on averaged, the others as they are."""
    if len(views) == 1:
        return views[0]
    scores, boxes, landmarks = [], [], []
    rest = [(faces, np.ones(len(faces), np.bool_)) for faces in views]
    for turn, (faces, free) in enumerate(rest):
        for i in np.flatnonzero(free):
            same = [(faces, int(i))]
            for others, others_free in rest[turn + 1 :]:
                shared = iou(faces.boxes[i], others.boxes) * others_free
                if len(shared) and shared.max() > _SAME_FACE:
                    same.append((others, int(shared.argmax())))
                    others_free[same[-1][1]] = False
            scores.append(max(f.scores[k] for f, k in same))
            boxes.append(np.mean([f.boxes[k] for f, k in same], axis=0))
            landmarks.append(np.mean([f.landmarks[k] for f, k in same], axis=0))
    order = np.argsort(-np.array(scores), kind="stable")
    return Faces(
        np.array(scores, np.float32)[order],
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(landmarks, np.float32).reshape(-1, 5, 2)[order],
    )
