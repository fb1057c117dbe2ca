"""A detector's raw answer to faces: one decoder for each family of detectors, and non-maximum suppression.

To add a family, write its decode function and put a `Decoder` into DECODERS. A model file then names it:
`task = "detect"` and `decode = "yunet"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ModelError

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one picture, best first.

    Attributes:
        scores: (F,) float32, 0 to 1, descending.
        boxes: (F, 4) float32, pixels: left, top, right, bottom.
        landmarks: (F, 5, 2) float32, pixels: eyes, nose, mouth corners, left first as seen in the picture.
        seen: (F,) float32, the longer sides of the boxes in the picture that the detector saw, pixels.
    """

    scores: Floats
    boxes: Floats
    landmarks: Floats
    seen: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def scaled(self, factor: float, shift: tuple[float, float] = (0.0, 0.0)) -> Faces:
        """The same faces in a picture `factor` times as large: pixel x is at (x + shift + 0.5) * factor - 0.5.

        Boxes are bounded by the edges of pixels, landmarks lie in their middles.
        """
        x, y = shift
        boxes = (self.boxes + np.array([x, y, x, y], np.float32)) * np.float32(factor)
        landmarks = (self.landmarks + np.array([x + 0.5, y + 0.5], np.float32)) * np.float32(factor) - np.float32(0.5)
        return Faces(self.scores, boxes, landmarks, self.seen)

    def turned_back(self, turns: int, height: int, width: int) -> Faces:
        """The same faces in a picture of this height and width, of which theirs is `np.rot90(picture, turns)`."""
        boxes, landmarks = self.boxes.reshape(-1, 2, 2), self.landmarks
        for turn in range(turns, 0, -1):  # each takes one quarter back, to a picture that is `wide` pixels wide
            wide = height if turn % 2 == 0 else width
            boxes = np.stack([wide - boxes[..., 1], boxes[..., 0]], axis=-1)
            landmarks = np.stack([wide - 1 - landmarks[..., 1], landmarks[..., 0]], axis=-1)
        boxes = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
        return Faces(self.scores, boxes.astype(np.float32), landmarks.astype(np.float32), self.seen)

    def some(self, which: Sequence[int] | NDArray[np.integer]) -> Faces:
        """Those of these places, in this order."""
        at = np.asarray(which, np.int64)
        return Faces(self.scores[at], self.boxes[at], self.landmarks[at], self.seen[at])

    def replaced(self, place: int, others: Faces, which: int) -> Faces:
        """The same faces, but for one, in whose place there is one of the others."""
        columns = {name: getattr(self, name).copy() for name in Faces.__slots__}
        for name, column in columns.items():
            column[place] = getattr(others, name)[which]
        return Faces(**columns)


@dataclass(frozen=True, slots=True)
class Decoder:
    """How detectors of one family put faces into numbers.

    The network's file has one output of each head for each stride, or one of each head for all strides together.
    An engine answers (N, P, V): for each of the P anchors the V values of all heads, side by side.

    Attributes:
        strides: pixels between the cells of each grid, rising.
        anchors: anchors of each cell.
        sure: lowest score of a face that is upright beyond doubt. YuNet takes an upside-down face for an upright one
            with scores up to 0.87; of LFW's photographs 1 in 1,000 has a lower one than 0.88.
        decode: (values (K, V), cells (K, 2) column and row, strides (K,)) -> boxes (K, 4), landmarks (K, 5, 2), pixels.
        heads: values of an anchor in each head, all different: score, box and five landmarks. Where the file has two
            outputs of one value for each stride, the score is their geometric mean.
        score_at: which of the V values is the score, 0 to 1.
    """

    strides: tuple[int, ...]
    anchors: int
    sure: float
    decode: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]
    heads: tuple[int, ...] = (1, 4, 10)
    score_at: int = 0

    @property
    def values(self) -> int:
        """V: values of an anchor."""
        return sum(self.heads)

    @property
    def step(self) -> int:
        """The sides of a picture are multiples of it, pixels."""
        return self.strides[-1]

    def anchor_count(self, height: int, width: int) -> int:
        """P: anchors of a picture whose sides are multiples of `step`."""
        return sum(self.anchors * (height // stride) * (width // stride) for stride in self.strides)


def _yunet(values: Floats, cells: Floats, strides: Floats) -> tuple[Floats, Floats]:
    """Source: OpenCV, modules/objdetect/src/face_detect.cpp, FaceDetectorYNImpl::postProcess."""
    stride = strides[:, None]
    middle = (cells + values[:, 1:3]) * stride
    half = np.exp(values[:, 3:5]) * stride / 2
    landmarks = (values[:, 5:].reshape(-1, 5, 2) + cells[:, None]) * stride[..., None]
    return np.concatenate([middle - half, middle + half], axis=1), landmarks


def _scrfd(values: Floats, cells: Floats, strides: Floats) -> tuple[Floats, Floats]:
    """Source: InsightFace, python-package/insightface/model_zoo/scrfd.py, distance2bbox and distance2kps."""
    stride = strides[:, None]
    middle = cells * stride
    reach = values[:, 1:5] * stride
    landmarks = values[:, 5:].reshape(-1, 5, 2) * stride[..., None] + middle[:, None]
    return np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], axis=1), landmarks


DECODERS = {
    "yunet": Decoder((8, 16, 32), anchors=1, sure=0.88, decode=_yunet),
    "scrfd": Decoder((8, 16, 32), anchors=2, sure=0.8, decode=_scrfd),
}


def decoder_of(name: str) -> Decoder:
    """The decoder of a name, as model files state it.

    Raises:
        ModelError: there is none.
    """
    if name not in DECODERS:
        raise ModelError(f"no decoder of detectors is named {name!r}; expected: {' or '.join(DECODERS)}")
    return DECODERS[name]


def find_faces(
    raw: NDArray[np.float32],
    *,
    decoder: Decoder,
    height: int,
    width: int,
    threshold: float,
    overlap: float = 0.3,
    vote: float = 1.0,
) -> list[Faces]:
    """The faces of a batch of pictures of one size.

    Args:
        raw: (N, P, V) float32: score (0 to 1), box and landmarks as the network gives them, of every anchor.
        decoder: of the detector's family.
        height, width: of the pictures, pixels; multiples of the decoder's step.
        threshold: anchors with a lower score are no faces.
        overlap: of two boxes with a larger intersection over union, the one with the lower score is dropped.
        vote: landmarks are the mean, weighted by score, over all anchors whose boxes share more than this with the best
            one, those of half the threshold too: several anchors see a face, each with errors of its own. 1: those of
            the best anchor alone.
    Returns:
        N results, in pixels of the pictures.
    Raises:
        ConfigError: the raw answer is not of that family and size.
    """
    expected = (len(raw), decoder.anchor_count(height, width), decoder.values)
    if raw.shape != expected:
        raise ConfigError(f"a detector answered {raw.shape} for {width}x{height} pixels; expected: {expected}")
    cells, strides = _grid(decoder.strides, decoder.anchors, height, width)
    lowest = threshold / 2 if vote < 1 else threshold
    pictures, anchors = np.nonzero(
        raw[..., decoder.score_at] >= lowest
    )  # few of thousands: all else is done for these alone
    values = raw[pictures, anchors]
    scores = values[:, decoder.score_at]  # (K,)
    boxes, landmarks = decoder.decode(values, cells[anchors], strides[anchors])
    ends = np.searchsorted(pictures, np.arange(len(raw) + 1))
    found = []
    for start, stop in pairwise(ends):
        sure = start + np.flatnonzero(scores[start:stop] >= threshold)
        kept = sure[suppress(boxes[sure], scores[sure], overlap)]
        points = landmarks[kept]
        if vote < 1:
            for face, best in enumerate(kept):
                weights = scores[start:stop] * (iou(boxes[best], boxes[start:stop]) > vote)
                points[face] = np.tensordot(weights / weights.sum(), landmarks[start:stop], 1)
        found.append(Faces(scores[kept], boxes[kept], points, long_sides(boxes[kept])))
    return found


@lru_cache(maxsize=64)
def _grid(strides: tuple[int, ...], anchors: int, height: int, width: int) -> tuple[Floats, Floats]:
    """(P, 2) column and row of every anchor's cell, and (P,) its stride, in the order of the network's answer."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        grid = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        cells.append(np.repeat(grid, anchors, axis=0))
        steps.append(np.full(len(grid) * anchors, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def suppress(boxes: Floats, scores: Floats, overlap: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: the kept ones, best first.

    Args:
        boxes: (K, 4).
        scores: (K,).
        overlap: intersection over union above which the lower one goes.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        order = order[iou(boxes[best], boxes[order]) <= overlap]
    return np.array(kept, np.int64)


def iou(one: Floats, others: Floats) -> Floats:
    """(K,) intersection over union of a box (4,) with boxes (K, 4)."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    area = (one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.asarray(shared / np.maximum(area, 1e-9), np.float32)


def long_sides(boxes: Floats) -> Floats:
    """(F,) pixels."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0), np.float32)


def area(boxes: Floats) -> Floats:
    """(F,) square pixels."""
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1), np.float32)


def main_face(faces: Faces, height: int, width: int) -> int:
    """Which face the photograph is of: large and near its middle. At least one face.

    The distance of a box's middle from the picture's, in units of the box's own side: a face twice as large may be
    twice as far off.
    """
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    distance = np.linalg.norm(middles - np.array([width / 2, height / 2], np.float32), axis=1)
    side = np.sqrt(np.maximum(area(faces.boxes), 1e-6))
    return int(np.argmin(distance / side - np.log(side / side.max())))
