"""Photographs of any sizes to faces: views of each at several sizes, in batches of one shape, until a face is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import STRIDES, Faces, find_faces, iou
from .resize import shrink

Detect = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_STEP = STRIDES[-1]
_ANOTHER_FACE = 0.2  # below it, boxes of two looks are of two faces
_SAME_FACE = 0.4  # intersection over union of one face in two views
_VOTE = 0.6
_SMALL = 32  # pixels of a view: the landmarks of a smaller face are uncertain


@dataclass(frozen=True, slots=True)
class View:
    """A photograph made ready for the detector.

    Attributes:
        long_side: of the photograph in it, pixels.
        border: empty space on every side, as a part of the long side: a face that fills the photograph needs it.
    """

    long_side: int
    border: float = 0.0

    def scale(self, height: int, width: int) -> float:
        """How many times as large as it is a photograph is in it."""
        return self.long_side / max(height, width)


@dataclass(frozen=True, slots=True)
class FindRules:
    """How faces are looked for; part of the embedding contract.

    Attributes:
        views: always looked at; what they agree on is averaged, which steadies the landmarks.
        retries: looked at one after another while nothing has been found.
        closer: looked at one after another while what has been found is small in the view that showed it.
        every: whether small faces count beside large ones.
        threshold: lowest score of a face.
    """

    views: tuple[View, ...] = (View(160),)
    retries: tuple[View, ...] = (View(160, 0.5), View(448), View(320, 0.25), View(960))
    closer: tuple[View, ...] = (View(448), View(960))
    every: bool = False
    threshold: float = 0.6

    def shown(self, height: int, width: int) -> float:
        """How many times as large as it is the largest of `views` shows a photograph."""
        return max(view.scale(height, width) for view in self.views)

    def small(self, faces: Faces, shown: float) -> bool:
        """Whether a closer look is wanted.

        Args:
            faces: of a photograph, in its pixels.
            shown: how many times as large as it is the photograph was when they were seen.
        """
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0.0) * shown  # (F,)
        return len(sides) > 0 and bool((sides.min() if self.every else sides.max()) < _SMALL)


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
        rules = self._rules
        seen = [self._look(photos, view) for view in rules.views]
        found = [merge(views) for views in zip(*seen, strict=True)]
        shown = [rules.shown(*photo.shape[:2]) for photo in photos]
        for view in rules.retries:
            missing = [i for i, faces in enumerate(found) if not len(faces)]
            if not missing:
                break
            for i, faces in zip(missing, self._look([photos[i] for i in missing], view), strict=True):
                found[i], shown[i] = faces, view.scale(*photos[i].shape[:2])
        for view in rules.closer:
            scales = [view.scale(*photo.shape[:2]) for photo in photos]
            small = [i for i, faces in enumerate(found) if scales[i] > shown[i] and rules.small(faces, shown[i])]
            for i, faces in zip(small, self._look([photos[i] for i in small], view), strict=True):
                found[i], shown[i] = finer(found[i], faces), scales[i]
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
                faces = read_answer(self._detect(canvases), self._family, self._rules, height, width)
                for i, one, (factor, shift) in zip(part, faces, places, strict=True):
                    found[i] = one.scaled(1 / factor, (-shift, -shift))
        return [found[i] for i in range(len(photos))]


def read_answer(raw: NDArray[np.float32], family: str, rules: FindRules, height: int, width: int) -> list[Faces]:
    """The faces of a batch of canvases, in their pixels: see find_faces."""
    return find_faces(raw, family=family, height=height, width=width, threshold=rules.threshold, vote=_VOTE)


def canvas_shape(height: int, width: int, view: View) -> tuple[int, int]:
    """(H, W) of the smallest canvas that a view of a photograph fits, multiples of 32."""
    factor = view.scale(height, width)
    space = 2 * view.border * view.long_side
    rows, columns = (max(1, round(side * factor)) + space for side in (height, width))
    return _STEP * int(np.ceil(rows / _STEP)), _STEP * int(np.ceil(columns / _STEP))


def draw(photo: NDArray[np.uint8], view: View, canvas: NDArray[np.uint8]) -> tuple[float, int]:
    """Put a view of a photograph on a black canvas.

    Returns:
        How many times larger the photograph is there, and how many pixels from the left and the top it begins.
    """
    height, width = photo.shape[:2]
    factor = view.scale(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shift = round(view.border * view.long_side)
    canvas[shift : shift + size[0], shift : shift + size[1]] = shrink(photo, *size)
    return factor, shift


def finer(before: Faces, closer: Faces) -> Faces:
    """The faces of a closer look, and those of the look before that it does not show."""
    if not len(closer):
        return before
    lost = [i for i, box in enumerate(before.boxes) if iou(box, closer.boxes).max() < _ANOTHER_FACE]
    joined = [np.concatenate([getattr(closer, name), getattr(before, name)[lost]]) for name in Faces.__slots__]
    order = np.argsort(-joined[0], kind="stable")
    return Faces(*(part[order] for part in joined))


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
