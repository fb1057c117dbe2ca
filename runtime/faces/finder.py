"""Photographs of any sizes to faces: views of each at several sizes, in batches of one shape, until a face is found."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..images.resize import shrink
from .detectors import Decoder, Faces, find_faces, iou

Detect = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_ANOTHER_FACE = 0.2  # below it, boxes of two looks are of two faces
_SAME_FACE = 0.4  # intersection over union of one face in two views
_VOTE = 0.6
_SMALL = 48  # pixels of a view: the landmarks of a smaller face are uncertain
_SURROUNDINGS = 2.5  # of a face that is looked at again, in its longer sides
_CLEARLY = 0.02  # by how much the score in a turned photograph has to be higher


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
        turned: a quarter, a half and three quarters of a turn; looked at where no face is sure, for photographs that
            lie on their side and do not say so.
        retries: looked at one after another while nothing has been found.
        closer: looked at where small faces count beside large ones and some were small.
        near: the surroundings of a face that was small where it was seen.
        threshold: lowest score of a face.
    """

    views: tuple[View, ...] = (View(160),)
    retries: tuple[View, ...] = (View(160, 0.5), View(448), View(320, 0.25), View(960))
    closer: tuple[View, ...] = ()
    turned: View = View(160)
    near: View = View(160)
    threshold: float = 0.6

    def __str__(self) -> str:
        """All of it, for the embedding contract."""
        views = " ".join(f"{view.long_side}+{view.border:g}" for view in (*self.views, *self.retries, *self.closer))
        return f"{views}; turned {self.turned.long_side}; near {self.near.long_side} below {_SMALL}"

    @property
    def looks(self) -> int:
        """How many there are at a photograph in which nothing is found."""
        return len(self.views) + len(self.retries) + 3


def unsure(faces: Faces, decoder: Decoder) -> bool:
    """Whether a photograph may lie on its side, or on its head."""
    return not len(faces) or float(faces.scores.max()) < decoder.sure


def small(faces: Faces) -> NDArray[np.bool_]:
    """(F,) whether the landmarks of a face are uncertain."""
    return faces.seen < _SMALL


class Finder:
    """Finds the faces of photographs.

    Args:
        detect: (n, H, W, 3) uint8, sides multiples of the decoder's step -> (n, P, V) float32; at most `batch` at once.
        decoder: of the detector's family.
        rules: how to look.
        batch: pictures in one call.
    """

    def __init__(self, detect: Detect, decoder: Decoder, rules: FindRules, batch: int) -> None:
        self._detect, self._decoder, self._rules, self._batch = detect, decoder, rules, batch

    def find(self, photos: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """The faces of each photograph, best first, in its own pixels; empty where there are none.

        Args:
            photos: N arrays, (H, W, 3) uint8, in the detector's channel order.
        """
        rules = self._rules
        seen = [self._look(photos, view) for view in rules.views]
        found = [merge(views) for views in zip(*seen, strict=True)]
        sure = self._decoder.sure
        doubtful = [i for i, faces in enumerate(found) if unsure(faces, self._decoder)]
        for turns in (1, 2, 3):
            turned = [np.rot90(photos[i], turns) for i in doubtful]
            for i, faces in zip(doubtful, self._look(turned, rules.turned), strict=True):
                if len(faces) and faces.scores[0] > max(found[i].scores + _CLEARLY, default=sure):
                    found[i] = faces.turned_back(turns, *photos[i].shape[:2])
        for view in rules.retries:
            missing = [i for i, faces in enumerate(found) if not len(faces)]
            for i, faces in zip(missing, self._look([photos[i] for i in missing], view), strict=True):
                found[i] = faces
        for view in rules.closer:
            some = [i for i, faces in enumerate(found) if small(faces).any()]
            for i, faces in zip(some, self._look([photos[i] for i in some], view), strict=True):
                found[i] = finer(found[i], faces)
        return found

    def look_closer(self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]) -> list[Faces]:
        """The same faces; those that were small where they were seen as their surroundings show them.

        Args:
            photos: as for `find`.
            faces: of each, in its pixels; one that lies on its side, or is not seen again, stays as it is.
        """
        todo = [
            (i, int(k), surroundings(one.boxes[k], *photo.shape[:2]))
            for i, (photo, one) in enumerate(zip(photos, faces, strict=True))
            for k in np.flatnonzero(small(one) & _upright(one))
        ]
        regions = [photos[i][top:bottom, left:right] for i, _, (left, top, right, bottom) in todo]
        better = list(faces)
        for (i, k, (left, top, *_)), again in zip(todo, self._look(regions, self._rules.near), strict=True):
            again = again.scaled(1.0, (left, top))
            shared = iou(faces[i].boxes[k], again.boxes)
            if len(shared) and shared.max() > _ANOTHER_FACE:
                better[i] = better[i].replaced(k, again, int(shared.argmax()))
        return better

    def _look(self, photos: Sequence[NDArray[np.uint8]], view: View) -> list[Faces]:
        """One view of each."""
        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, photo in enumerate(photos):
            shapes[canvas_shape(photo.shape[0], photo.shape[1], view, self._decoder.step)].append(i)
        found: dict[int, Faces] = {}
        for (height, width), members in shapes.items():
            for start in range(0, len(members), self._batch):
                part = members[start : start + self._batch]
                canvases = np.zeros((len(part), height, width, 3), np.uint8)  # (n, H, W, 3)
                places = [draw(photos[i], view, canvas) for i, canvas in zip(part, canvases, strict=True)]
                faces = read_answer(self._detect(canvases), self._decoder, self._rules, height, width)
                for i, one, (factor, shift) in zip(part, faces, places, strict=True):
                    found[i] = one.scaled(1 / factor, (-shift, -shift))
        return [found[i] for i in range(len(photos))]


def read_answer(raw: NDArray[np.float32], decoder: Decoder, rules: FindRules, height: int, width: int) -> list[Faces]:
    """The faces of a batch of canvases, in their pixels: see find_faces."""
    return find_faces(raw, decoder=decoder, height=height, width=width, threshold=rules.threshold, vote=_VOTE)


def canvas_shape(height: int, width: int, view: View, step: int) -> tuple[int, int]:
    """(H, W) of the smallest canvas that a view of a photograph fits, multiples of `step`."""
    factor = view.scale(height, width)
    space = 2 * view.border * view.long_side
    rows, columns = (max(1, round(side * factor)) + space for side in (height, width))
    return step * int(np.ceil(rows / step)), step * int(np.ceil(columns / step))


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


def surroundings(box: NDArray[np.float32], height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a photograph that is around a face."""
    half = max(2.0, float(max(box[2] - box[0], box[3] - box[1])) * _SURROUNDINGS / 2)
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    return left, top, min(width, math.ceil(x + half)), min(height, math.ceil(y + half))


def _upright(faces: Faces) -> NDArray[np.bool_]:
    """(F,) whether the eyes lie beside each other, left first."""
    across = faces.landmarks[:, 1] - faces.landmarks[:, 0]  # (F, 2)
    return np.asarray(across[:, 0] > np.abs(across[:, 1]), np.bool_)


def finer(before: Faces, closer: Faces) -> Faces:
    """The faces of a closer look, and those of the look before that it does not show."""
    if not len(closer):
        return before
    lost = [i for i, box in enumerate(before.boxes) if iou(box, closer.boxes).max() < _ANOTHER_FACE]
    joined = Faces(*(np.concatenate([getattr(closer, name), getattr(before, name)[lost]]) for name in Faces.__slots__))
    return joined.some(np.argsort(-joined.scores, kind="stable"))


def merge(views: Sequence[Faces]) -> Faces:
    """Faces of several views of one photograph: those that views agree on averaged, the others as they are."""
    if len(views) == 1:
        return views[0]
    scores, boxes, landmarks, seen = [], [], [], []
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
            seen.append(max(f.seen[k] for f, k in same))
    merged = Faces(
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(landmarks, np.float32).reshape(-1, 5, 2),
        np.array(seen, np.float32),
    )
    return merged.some(np.argsort(-merged.scores, kind="stable"))
