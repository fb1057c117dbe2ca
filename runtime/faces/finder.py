"""Find the faces of photos of any size: draw views of each at several sizes, in batches of one shape, and detect."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..images.resize import shrink
from .detectors import Decoder, Faces, find_faces, iou

Detect = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Doubt = Callable[[Sequence[NDArray[np.uint8]], Sequence[Faces]], list[NDArray[np.float32]]]
"""Tells of photos and their faces how doubtful each face is; see `second_look.SecondLook.doubts`."""

_MIN_IOU_SAME_PLACE = 0.2  # boxes of two passes with a lower one are different faces
_MIN_IOU_SAME_FACE = 0.4  # of a face in two views
_VOTE_IOU = 0.6
_SMALL_FACE_PX = 48  # pixels of a view: the landmarks of a smaller face are uncertain
_SURROUNDINGS_SIDES = 2.5  # side of the surroundings of a face, in longer sides of its box
_MIN_TURN_GAIN = 0.02  # minimum gain in score for a turned photo to win
# The doubts of a second look: below 0.1 for nearly all faces; the limit keeps those of 479 portraits and 7,701 of LFW.
_MAX_DOUBT = 0.27  # of a face in a photo that shows no sure one
_MAX_FAINT_DOUBT = 0.1  # of a face with a score below the threshold
_TURNS = 4  # of a photo, the upright one included
_FAINT_SCORE = 0.75  # minimum score of such a face, in thresholds


@dataclass(frozen=True, slots=True)
class View:
    """A photo resized for the detector.

    Attributes:
        long_side: long side of the photo in the view, pixels.
        border: empty space on every side, as a fraction of the long side; a face that fills the photo needs it.
    """

    long_side: int
    border: float = 0.0

    def scale(self, height: int, width: int) -> float:
        """Size of the photo in the view, relative to its own size."""
        return self.long_side / max(height, width)


_GLANCE = View(96)  # shows whether the one face of an aligned crop is where it should be, in a millisecond


@dataclass(frozen=True, slots=True)
class FindRules:
    """How faces are detected; part of the embedding contract.

    Attributes:
        views: views that are always searched. Faces in several of them are averaged, which steadies the landmarks.
        turned: view of the photo turned by 90, 180 and 270 degrees. It is searched when no face is confident, for
            photos that are turned without an EXIF orientation.
        retries: views that are searched one after another until there is a face.
        closer: views that are searched when small faces matter and a face was small.
        near: view of the surroundings of a face that was small.
        threshold: minimum score of a face.
        confirmed: whether a second look must confirm the faces of a photo that shows no sure one.
        faint: view of the photo, upright and turned, that is searched last for faces with a lower score, of which the
            second look is sure; only with `confirmed`.
    """

    views: tuple[View, ...] = (View(160),)
    retries: tuple[View, ...] = (View(160, 0.5), View(448), View(320, 0.25), View(960))
    closer: tuple[View, ...] = ()
    turned: View = View(160)
    near: View = View(160)
    threshold: float = 0.6
    confirmed: bool = False
    faint: View = View(320)

    def with_second_look(self) -> FindRules:
        """The same rules for photos whose doubtful faces get a second look: one more view, because it is no risk."""
        return replace(self, retries=(*self.retries, View(160, 0.25)), confirmed=True)

    def __str__(self) -> str:
        """All rules as text, for the embedding contract."""
        views = " ".join(f"{view.long_side}+{view.border:g}" for view in (*self.views, *self.retries, *self.closer))
        text = f"{views}; turned {self.turned.long_side}; near {self.near.long_side} below {_SMALL_FACE_PX}"
        if not self.confirmed:
            return text
        faint = f"faint {self.faint.long_side} from {_FAINT_SCORE:g} doubt {_MAX_FAINT_DOUBT:g}"
        return f"{text}; doubt {_MAX_DOUBT:g}; {faint}"

    def explain_no_face(self) -> str:
        """The detail of a photo without a face: which scores would have been one, in how many views."""
        views = len(self.views) + len(self.retries) + _TURNS - 1
        if not self.confirmed:
            return f"no face: the detector saw none with a score of {self.threshold:g} in {views} views"
        return (
            f"no face: the detector saw none with a score of {self.threshold:g} in {views} views, or of "
            f"{_FAINT_SCORE * self.threshold:g} in {_TURNS} more, that the landmark network confirmed"
        )


def lacks_sure_face(faces: Faces, decoder: Decoder) -> bool:
    """Whether no face is certainly upright: the photo may be turned."""
    return not len(faces) or float(faces.scores.max()) < decoder.sure


def are_small(faces: Faces) -> NDArray[np.bool_]:
    """(F,) whether a face was so small that its landmarks are uncertain."""
    return faces.seen_px < _SMALL_FACE_PX


class Finder:
    """Finds the faces of photos.

    Args:
        detect: (n, H, W, 3) uint8, sides multiples of the decoder's step -> (n, P, V) float32; n is at most `batch`.
        decoder: the decoder of the detector's family.
        rules: how faces are detected.
        batch: maximum number of images in one call.
        doubt: the second look of a landmark network; needed for rules that are `confirmed`.
    Attributes:
        rules: how faces are detected.
    """

    def __init__(
        self, detect: Detect, decoder: Decoder, rules: FindRules, batch: int, doubt: Doubt | None = None
    ) -> None:
        assert not rules.confirmed or doubt is not None
        self._detect, self._decoder, self.rules, self._batch, self._doubt = detect, decoder, rules, batch, doubt

    def find(self, photos: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Find the faces of each photo, best first, in its own pixels; may be empty.

        Args:
            photos: N arrays, (H, W, 3) uint8, in the detector's channel order.
        """
        rules = self.rules
        by_view = [self._search(photos, view) for view in rules.views]
        results = [merge_views(views) for views in zip(*by_view, strict=True)]
        sure = self._decoder.sure
        unsure = [i for i, faces in enumerate(results) if lacks_sure_face(faces, self._decoder)]
        for turns in (1, 2, 3):
            turned_photos = [np.rot90(photos[i], turns) for i in unsure]
            for i, faces in zip(unsure, self._search(turned_photos, rules.turned), strict=True):
                if len(faces) and faces.scores[0] > max(results[i].scores + _MIN_TURN_GAIN, default=sure):
                    results[i] = faces.turn_back(turns, *photos[i].shape[:2])
        self._confirm(photos, results, unsure)
        for view in rules.retries:
            missing = [i for i, faces in enumerate(results) if not len(faces)]
            for i, faces in zip(missing, self._search([photos[i] for i in missing], view), strict=True):
                results[i] = faces
            self._confirm(photos, results, missing)
        if rules.confirmed:
            self._find_faint(photos, results)
        for view in rules.closer:
            indices = [i for i, faces in enumerate(results) if are_small(faces).any()]
            for i, faces in zip(indices, self._search([photos[i] for i in indices], view), strict=True):
                results[i] = prefer_closer(results[i], faces)
        return results

    def _confirm(
        self, photos: Sequence[NDArray[np.uint8]], results: list[Faces], where: Sequence[int], most: float = _MAX_DOUBT
    ) -> None:
        """Drop doubtful faces from the results of some photos, unless one of their faces is sure."""
        if self._doubt is None or not self.rules.confirmed:
            return
        unsure = [i for i in where if len(results[i]) and lacks_sure_face(results[i], self._decoder)]
        doubts = self._doubt([photos[i] for i in unsure], [results[i] for i in unsure])
        for i, each in zip(unsure, doubts, strict=True):
            results[i] = results[i].take(np.flatnonzero(each <= most))

    def _find_faint(self, photos: Sequence[NDArray[np.uint8]], results: list[Faces]) -> None:
        """Search photos without a face for one with a low score: small, tilted far or in profile."""
        missing = [i for i, faces in enumerate(results) if not len(faces)]
        lower = replace(self.rules, threshold=_FAINT_SCORE * self.rules.threshold)
        for turns in range(_TURNS):
            turned = [np.ascontiguousarray(np.rot90(photos[i], turns)) for i in missing]
            faint = self._search(turned, self.rules.faint, lower)
            self._confirm(turned, faint, range(len(faint)), _MAX_FAINT_DOUBT)
            for i, faces in zip(missing, faint, strict=True):
                if len(faces) and (not len(results[i]) or faces.scores[0] > results[i].scores[0]):
                    results[i] = faces.turn_back(turns, *photos[i].shape[:2])

    def glance(self, photos: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Find the faces that one small view of each photo shows, best first, in its own pixels; may be empty.

        Args:
            photos: N arrays, (H, W, 3) uint8, in the detector's channel order.
        """
        return self._search(photos, _GLANCE)

    def look_closer(self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]) -> list[Faces]:
        """Detect small faces again in a view of their surroundings. Other faces are returned unchanged.

        Args:
            photos: N arrays, (H, W, 3) uint8, in the detector's channel order.
            faces: the faces of each photo, in its pixels. A face that is sideways or not detected again is kept.
        """
        small_faces = [
            (i, int(k), surroundings(photo_faces.boxes[k], *photo.shape[:2]))
            for i, (photo, photo_faces) in enumerate(zip(photos, faces, strict=True))
            for k in np.flatnonzero(are_small(photo_faces) & _are_upright(photo_faces))
        ]
        regions = [photos[i][top:bottom, left:right] for i, _, (left, top, right, bottom) in small_faces]
        results = list(faces)
        for (i, k, (left, top, *_)), near in zip(small_faces, self._search(regions, self.rules.near), strict=True):
            near = near.scale(1.0, (left, top))
            overlaps = iou(faces[i].boxes[k], near.boxes)
            if len(overlaps) and overlaps.max() > _MIN_IOU_SAME_PLACE:
                results[i] = results[i].replace_face(k, near, int(overlaps.argmax()))
        return results

    def _search(self, photos: Sequence[NDArray[np.uint8]], view: View, rules: FindRules | None = None) -> list[Faces]:
        """Detect the faces in a view of each photo, with the threshold of these rules or of its own."""
        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, photo in enumerate(photos):
            shapes[canvas_shape(photo.shape[0], photo.shape[1], view, self._decoder.step)].append(i)
        results: dict[int, Faces] = {}
        for (height, width), members in shapes.items():
            for start in range(0, len(members), self._batch):
                part = members[start : start + self._batch]
                canvases = np.zeros((len(part), height, width, 3), np.uint8)  # (n, H, W, 3)
                positions = [draw(photos[i], view, canvas) for i, canvas in zip(part, canvases, strict=True)]
                detected = decode_output(self._detect(canvases), self._decoder, rules or self.rules, height, width)
                for i, faces, (factor, shift) in zip(part, detected, positions, strict=True):
                    results[i] = faces.scale(1 / factor, (-shift, -shift))
        return [results[i] for i in range(len(photos))]


def decode_output(raw: NDArray[np.float32], decoder: Decoder, rules: FindRules, height: int, width: int) -> list[Faces]:
    """Decode the faces of a batch of canvases, in their pixels, with the rules' threshold."""
    return find_faces(raw, decoder=decoder, height=height, width=width, threshold=rules.threshold, vote=_VOTE_IOU)


def canvas_shape(height: int, width: int, view: View, step: int) -> tuple[int, int]:
    """(H, W) of the smallest canvas that holds a view of a photo, multiples of `step`."""
    factor = view.scale(height, width)
    space = 2 * view.border * view.long_side
    rows, columns = (max(1, round(side * factor)) + space for side in (height, width))
    return step * int(np.ceil(rows / step)), step * int(np.ceil(columns / step))


def draw(photo: NDArray[np.uint8], view: View, canvas: NDArray[np.uint8]) -> tuple[float, int]:
    """Put a view of a photo on a black canvas.

    Returns:
        The size of the photo there relative to its own, and its distance from the left and the top, pixels.
    """
    height, width = photo.shape[:2]
    factor = view.scale(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shift = round(view.border * view.long_side)
    canvas[shift : shift + size[0], shift : shift + size[1]] = shrink(photo, *size)
    return factor, shift


def surroundings(box: NDArray[np.float32], height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a photo around a face, pixels."""
    half = max(2.0, float(max(box[2] - box[0], box[3] - box[1])) * _SURROUNDINGS_SIDES / 2)
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    return left, top, min(width, math.ceil(x + half)), min(height, math.ceil(y + half))


def _are_upright(faces: Faces) -> NDArray[np.bool_]:
    """(F,) whether the eyes are side by side, left first."""
    across = faces.landmarks[:, 1] - faces.landmarks[:, 0]  # (F, 2)
    return np.asarray(across[:, 0] > np.abs(across[:, 1]), np.bool_)


def prefer_closer(before: Faces, closer: Faces) -> Faces:
    """Join the faces of a closer view with the earlier faces that it does not show."""
    if not len(closer):
        return before
    lost = [i for i, box in enumerate(before.boxes) if iou(box, closer.boxes).max() < _MIN_IOU_SAME_PLACE]
    joined = Faces(*(np.concatenate([getattr(closer, name), getattr(before, name)[lost]]) for name in Faces.__slots__))
    return joined.take(np.argsort(-joined.scores, kind="stable"))


def merge_views(views: Sequence[Faces]) -> Faces:
    """Merge the faces of several views of one photo: average a face of several views, keep the others."""
    if len(views) == 1:
        return views[0]
    scores, boxes, landmarks, seen_px = [], [], [], []
    unmatched = [(faces, np.ones(len(faces), np.bool_)) for faces in views]
    for number, (faces, free) in enumerate(unmatched):
        for i in np.flatnonzero(free):
            same = [(faces, int(i))]
            for later, later_free in unmatched[number + 1 :]:
                overlaps = iou(faces.boxes[i], later.boxes) * later_free
                if len(overlaps) and overlaps.max() > _MIN_IOU_SAME_FACE:
                    same.append((later, int(overlaps.argmax())))
                    later_free[same[-1][1]] = False
            scores.append(max(f.scores[k] for f, k in same))
            boxes.append(np.mean([f.boxes[k] for f, k in same], axis=0))
            landmarks.append(np.mean([f.landmarks[k] for f, k in same], axis=0))
            seen_px.append(max(f.seen_px[k] for f, k in same))
    merged = Faces(
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(landmarks, np.float32).reshape(-1, 5, 2),
        np.array(seen_px, np.float32),
    )
    return merged.take(np.argsort(-merged.scores, kind="stable"))
