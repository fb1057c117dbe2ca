"""Decode the output of a detector into faces: a decoder per detector family, and non-maximum suppression.

To add a family, write its decode function and add a `Decoder` to DECODERS. A model file then names it:
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

_SAME_SIZE = 1.1  # sides of boxes whose ratio is smaller are nearly the same


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one image, best first.

    Attributes:
        scores: (F,) float32, 0 to 1, descending.
        boxes: (F, 4) float32, pixels: left, top, right, bottom.
        landmarks: (F, 5, 2) float32, pixels: eyes, nose, mouth corners, left first as seen in the image.
        seen_px: (F,) float32, the longer sides of the boxes in the canvas that the detector saw, pixels.
    """

    scores: Floats
    boxes: Floats
    landmarks: Floats
    seen_px: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def scale(self, factor: float, shift: tuple[float, float] = (0.0, 0.0)) -> Faces:
        """The same faces in an image `factor` times as large: pixel x is at (x + shift + 0.5) * factor - 0.5.

        Box coordinates are edges of pixels; landmark coordinates are centres of pixels.
        """
        x, y = shift
        boxes = (self.boxes + np.array([x, y, x, y], np.float32)) * np.float32(factor)
        landmarks = (self.landmarks + np.array([x + 0.5, y + 0.5], np.float32)) * np.float32(factor) - np.float32(0.5)
        return Faces(self.scores, boxes, landmarks, self.seen_px)

    def turn_back(self, turns: int, height: int, width: int) -> Faces:
        """The same faces in an image of this height and width, when they are in `np.rot90(image, turns)`."""
        boxes, landmarks = self.boxes.reshape(-1, 2, 2), self.landmarks
        for turn in range(turns, 0, -1):  # turn back by a quarter, to an image of this width
            columns = height if turn % 2 == 0 else width
            boxes = np.stack([columns - boxes[..., 1], boxes[..., 0]], axis=-1)
            landmarks = np.stack([columns - 1 - landmarks[..., 1], landmarks[..., 0]], axis=-1)
        boxes = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
        return Faces(self.scores, boxes.astype(np.float32), landmarks.astype(np.float32), self.seen_px)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Faces:
        """The faces at these indices, in this order."""
        at = np.asarray(indices, np.int64)
        return Faces(self.scores[at], self.boxes[at], self.landmarks[at], self.seen_px[at])

    def with_landmarks(self, landmarks: Floats) -> Faces:
        """The same faces with other landmarks, (F, 5, 2) float32."""
        return Faces(self.scores, self.boxes, landmarks, self.seen_px)

    def replace_face(self, index: int, source: Faces, source_index: int) -> Faces:
        """The same faces, with one replaced by a face of `source`."""
        columns = {name: getattr(self, name).copy() for name in Faces.__slots__}
        for name, column in columns.items():
            column[index] = getattr(source, name)[source_index]
        return Faces(**columns)


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a family of detectors encodes faces.

    The model file has one output per head and stride, or one output per head for all strides together. An engine
    returns (N, P, V): for each of the P anchors the V values of all heads, side by side.

    Attributes:
        strides: pixels between the cells of each grid, ascending.
        anchors: anchors per cell.
        sure: score from which a face is certainly upright. YuNet takes an upside-down face for an upright one with
            scores up to 0.87; 1 in 1,000 photos of LFW scores below 0.88.
        decode: (values (K, V), cells (K, 2) column and row, strides (K,)) -> boxes (K, 4), landmarks (K, 5, 2), pixels.
        heads: number of values per anchor of each head, all different: score, box and five landmarks. If the file has
            two outputs of one value per stride, the score is their geometric mean.
        score_at: index of the score, 0 to 1, among the V values.
    """

    strides: tuple[int, ...]
    anchors: int
    sure: float
    decode: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]
    heads: tuple[int, ...] = (1, 4, 10)
    score_at: int = 0

    @property
    def values(self) -> int:
        """V: values per anchor."""
        return sum(self.heads)

    @property
    def step(self) -> int:
        """The sides of an image must be multiples of this, pixels."""
        return self.strides[-1]

    def anchor_count(self, height: int, width: int) -> int:
        """P: anchors of an image whose sides are multiples of `step`."""
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
    """The decoder of a name, as in model files.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in DECODERS:
        raise ModelError(f"unknown detector decoder {name!r}; expected: {' or '.join(DECODERS)}")
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
    """Decode the faces of a batch of images of one size.

    Args:
        raw: (N, P, V) float32: score (0 to 1), box and landmarks of every anchor, as the network returns them.
        decoder: the decoder of the detector's family.
        height, width: size of the images, pixels; multiples of the decoder's step.
        threshold: minimum score of a face.
        overlap: if the intersection over union of two boxes is larger, the one with the lower score is dropped.
        vote: landmarks are the mean, weighted by score, over all anchors whose boxes have a larger intersection over
            union with the best box, including anchors with half the threshold: several anchors see a face, and their
            errors differ. 1: the landmarks of the best anchor only.
    Returns:
        N results, in pixels of the images.
    Raises:
        ConfigError: the shape of the output does not match the family and size.
    """
    expected = (len(raw), decoder.anchor_count(height, width), decoder.values)
    if raw.shape != expected:
        raise ConfigError(f"the detector returned {raw.shape} for {width}x{height} pixels; expected: {expected}")
    cells, strides = _grid(decoder.strides, decoder.anchors, height, width)
    lowest = threshold / 2 if vote < 1 else threshold
    images, anchors = np.nonzero(raw[..., decoder.score_at] >= lowest)  # few of thousands; only these are decoded
    values = raw[images, anchors]
    scores = values[:, decoder.score_at]  # (K,)
    boxes, landmarks = decoder.decode(values, cells[anchors], strides[anchors])
    ends = np.searchsorted(images, np.arange(len(raw) + 1))
    results = []
    for start, stop in pairwise(ends):
        sure = start + np.flatnonzero(scores[start:stop] >= threshold)
        kept = sure[suppress(boxes[sure], scores[sure], overlap)]
        points = landmarks[kept]
        if vote < 1:
            for face, best in enumerate(kept):
                weights = scores[start:stop] * (iou(boxes[best], boxes[start:stop]) > vote)
                points[face] = np.tensordot(weights / weights.sum(), landmarks[start:stop], 1)
        results.append(Faces(scores[kept], boxes[kept], points, long_sides(boxes[kept])))
    return results


@lru_cache(maxsize=64)
def _grid(strides: tuple[int, ...], anchors: int, height: int, width: int) -> tuple[Floats, Floats]:
    """(P, 2) column and row of every anchor's cell, and (P,) its stride, in the order of the network's output."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        grid = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        cells.append(np.repeat(grid, anchors, axis=0))
        steps.append(np.full(len(grid) * anchors, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def suppress(boxes: Floats, scores: Floats, overlap: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices of the kept boxes, best first.

    Args:
        boxes: (K, 4).
        scores: (K,).
        overlap: intersection over union above which the box with the lower score is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        order = order[iou(boxes[best], boxes[order]) <= overlap]
    return np.array(kept, np.int64)


def iou(box: Floats, boxes: Floats) -> Floats:
    """(K,) intersection over union of a box (4,) with boxes (K, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = np.clip(sides, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - intersection
    return np.asarray(intersection / np.maximum(union, 1e-9), np.float32)


def long_sides(boxes: Floats) -> Floats:
    """(F,) longer sides of boxes, pixels."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0), np.float32)


def area(boxes: Floats) -> Floats:
    """(F,) areas of boxes, square pixels."""
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1), np.float32)


def main_face(faces: Faces, height: int, width: int) -> int:
    """Index of the main face of a photo: large and near the middle. There must be at least one face.

    The distance between the centres of box and photo is measured in sides of the box: a face twice as large may be
    twice as far away.
    """
    distance, side = _distance_and_side(faces, height, width)
    return int(np.argmin(distance / side - np.log(side / side.max())))


def largest_face(faces: Faces, height: int, width: int) -> int:
    """Index of the largest face of a photo. There must be at least one face.

    Of faces of nearly the same size, whose order is chance, it is the one nearest the middle. A card shows its holder
    large at the side, and perhaps somebody small in the middle.
    """
    distance, side = _distance_and_side(faces, height, width)
    return int(np.argmin(np.where(side * _SAME_SIZE >= side.max(), distance, np.inf)))


def _distance_and_side(faces: Faces, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(F,) distance from the middle of the photo, and (F,) side of a square with the area of the box, pixels."""
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    distance = np.linalg.norm(middles - np.array([width / 2, height / 2], np.float32), axis=1)
    return distance, np.sqrt(np.maximum(area(faces.boxes), 1e-6))
