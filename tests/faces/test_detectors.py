"""From raw detector outputs to faces: decoding, suppression, the choice of a face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError
from runtime.faces.detectors import DECODERS, Faces, find_faces, iou, largest_face, main_face, suppress
from tests.support.errors import raises


def answer(family: str, count: int = 1, height: int = 64, width: int = 96) -> NDArray[np.float32]:
    return np.zeros((count, DECODERS[family].anchor_count(height, width), 15), np.float32)


def put(raw: NDArray[np.float32], row: int, values: list[float]) -> None:
    raw[row, :] = values


def test_yunet_boxes_and_landmarks() -> None:
    raw = answer("yunet")[0]
    # Stride 16 starts after 8 * 12 cells of stride 8; this is its cell in row 1, column 2.
    put(raw, 96 + 1 * 6 + 2, [0.9, 0.5, -0.25, np.log(2), np.log(3), *range(10)])
    (faces,) = find_faces(raw[None], decoder=DECODERS["yunet"], height=64, width=96, threshold=0.5)
    np.testing.assert_allclose(faces.scores, [0.9])
    np.testing.assert_allclose(faces.boxes, [[2.5 * 16 - 16, 0.75 * 16 - 24, 2.5 * 16 + 16, 0.75 * 16 + 24]], atol=1e-4)
    np.testing.assert_allclose(faces.landmarks[0, 1], [(2 + 2) * 16, (3 + 1) * 16])


def test_scrfd_boxes_and_landmarks() -> None:
    raw = answer("scrfd")[0]
    # Two anchors per cell; stride 32 starts after 2 * (96 + 24) anchors; the second anchor of row 1, column 2.
    put(raw, 240 + 2 * (1 * 3 + 2) + 1, [0.8, 1, 0.5, 1.5, 0.25, *range(10)])
    (faces,) = find_faces(raw[None], decoder=DECODERS["scrfd"], height=64, width=96, threshold=0.5)
    np.testing.assert_allclose(faces.boxes, [[64 - 32, 32 - 16, 64 + 48, 32 + 8]])
    np.testing.assert_allclose(faces.landmarks[0, 4], [8 * 32 + 64, 9 * 32 + 32])


def test_each_picture_gets_its_own_faces_best_first() -> None:
    raw = answer("yunet", 4)
    for picture, cell, score in ((0, 3, 0.6), (0, 90, 0.8), (2, 50, 0.7), (2, 51, 0.3)):
        raw[picture, cell, 0] = score
    batches = find_faces(raw, decoder=DECODERS["yunet"], height=64, width=96, threshold=0.5)
    assert [faces.scores.tolist() for faces in batches] == [pytest.approx([0.8, 0.6]), [], pytest.approx([0.7]), []]


def test_the_best_of_overlapping_boxes_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 3]], np.float32)
    scores = np.array([0.7, 0.9, 0.6, 0.8], np.float32)
    np.testing.assert_allclose(iou(boxes[0], boxes), [1, 90 / 110, 0, 0.3], atol=1e-6)
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert suppress(boxes, scores, 0.25).tolist() == [1, 2]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_an_output_of_the_wrong_shape_is_refused() -> None:
    with raises(ConfigError, "(1, 126, 15)", "96x96", "(1, 189, 15)"):
        find_faces(answer("yunet"), decoder=DECODERS["yunet"], height=96, width=96, threshold=0.5)


def faces(*boxes: tuple[float, float, float, float]) -> Faces:
    return Faces(
        np.linspace(0.9, 0.6, len(boxes)).astype(np.float32),
        np.array(boxes, np.float32),
        np.zeros((len(boxes), 5, 2), np.float32),
        np.ones(len(boxes), np.float32),
    )


@pytest.mark.parametrize("choose", [main_face, largest_face])
def test_of_equals_the_face_in_the_middle_is_chosen(choose: Callable[[Faces, int, int], int]) -> None:
    middle, corner = (40, 40, 60, 60), (0, 0, 20, 20)
    assert choose(faces(corner, middle), 100, 100) == 1
    assert choose(faces((0, 0, 60, 60), (47, 47, 53, 53)), 100, 100) == 0  # a tiny one behind, in the very middle
    assert choose(faces(middle), 100, 100) == 0


def test_the_largest_face_need_not_be_in_the_middle() -> None:
    holder, other = (5, 30, 35, 60), (40, 40, 62, 62)  # of a card
    assert largest_face(faces(holder, other), 100, 100) == 0
    assert main_face(faces(holder, other), 100, 100) == 1
    assert largest_face(faces((0, 0, 21, 21), (40, 40, 60, 60)), 100, 100) == 1  # a twentieth larger is no difference


def test_scaling_preserves_pixel_centres() -> None:
    small = replace(faces((0, 0, 8, 4)), landmarks=np.full((1, 5, 2), 1.5, np.float32))
    large = small.scale(4)
    np.testing.assert_array_equal(large.boxes, [[0, 0, 32, 16]])
    np.testing.assert_array_equal(large.landmarks[0, 0], [7.5, 7.5])  # between pixels 1 and 2 is between 7 and 8
    np.testing.assert_array_equal(small.scale(1, (-1, -2)).boxes, [[-1, -2, 7, 2]])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_rotation_is_reversed(turns: int) -> None:
    picture = np.zeros((30, 50), int)
    picture[4:9, 20:32] = 1  # rows, columns
    picture[6, 25] = 2
    turned = np.rot90(picture, turns)
    (rows, columns), (row, column) = np.nonzero(turned), np.argwhere(turned == 2)[0]
    rotated = replace(
        faces((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)),
        landmarks=np.full((1, 5, 2), (column, row), np.float32),
    )
    back = rotated.turn_back(turns, 30, 50)
    np.testing.assert_array_equal(back.boxes, [[20, 4, 32, 9]])
    np.testing.assert_array_equal(back.landmarks, np.full((1, 5, 2), (25, 6)))


def test_uncertain_anchors_vote_but_are_no_faces() -> None:
    raw = answer("yunet")[0]
    put(raw, 5, [0.8, 0, 0, 1, 1, *[0.0] * 10])
    put(raw, 6, [0.4, -1, 0, 1, 1, *[1.0] * 10])  # the same box from the next cell, landmarks elsewhere
    put(raw, 60, [0.4, 0, 0, 1, 1, *[0.0] * 10])  # elsewhere
    (alone,) = find_faces(raw[None], decoder=DECODERS["yunet"], height=64, width=96, threshold=0.6)
    (voted,) = find_faces(raw[None], decoder=DECODERS["yunet"], height=64, width=96, threshold=0.6, vote=0.5)
    assert len(alone) == len(voted) == 1
    np.testing.assert_array_equal(voted.boxes, alone.boxes)
    first, second = alone.landmarks[0], alone.landmarks[0] + [16, 8]
    np.testing.assert_allclose(voted.landmarks[0], (2 * first + second) / 3, atol=1e-4)
