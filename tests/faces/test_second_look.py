"""The second look: answers for a square are carried into the photo, through turns, shifts, sizes and doubts."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.faces.align import TEMPLATE, align_crops, template
from runtime.faces.detectors import Faces
from runtime.faces.quality import fit
from runtime.faces.second_look import MARGIN, SecondLook, refine
from runtime.faces.selection import face_of_crop
from runtime.pipeline.face_work import open_second_look
from tests.support.dotted_landmarks import SIDE, build_dots, draw_dots

EYES = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))


@pytest.fixture(scope="module")
def second_look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondLook]:
    with open_runner(build_dots(tmp_path_factory.mktemp("dots"))) as runner:
        yield open_second_look(runner, "rgb")


def place(middle: tuple[float, float], degrees: float = 0.0, scale: float = 1.0) -> NDArray[np.float32]:
    """(5, 2): the template, turned and scaled around its middle, in a photo."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray((TEMPLATE - TEMPLATE.mean(axis=0)) @ turn.T * scale + middle, np.float32)


def faces_of(*landmarks: NDArray[np.float32], score: float = 0.9) -> Faces:
    points = np.stack(landmarks)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return Faces(np.full(len(points), score, np.float32), boxes, points, np.full(len(points), 99, np.float32))


TRUTHS = {
    "upright": place((150, 160)),
    "turned": place((150, 160), 25),
    "far turned": place((170, 150), -50, 1.3),
    "small": place((80, 90), 10, 0.6),
    "large": place((170, 160), -10, 2.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS.keys())
@pytest.mark.parametrize("degrees", [0, 20, -45])
@pytest.mark.parametrize("shift", [(0, 0), (9, -7)])
def test_landmarks_are_found_wherever_the_first_look_has_put_the_square(
    second_look: SecondLook, truth: NDArray[np.float32], degrees: float, shift: tuple[float, float]
) -> None:
    """A first look that is wrong by a turn, a shift and a size."""
    scale = float(np.linalg.norm(truth[1] - truth[0])) / EYES
    photo = draw_dots(330, 340, truth, radius=3 * scale)
    middle = truth.mean(axis=0)
    turned = (truth - middle) @ cv2.getRotationMatrix2D((0, 0), degrees, 1.1)[:, :2].T
    first = np.asarray(turned + middle + np.multiply(shift, scale), np.float32)
    (seen,) = second_look.improve([photo], [faces_of(first)])
    assert np.linalg.norm(seen.landmarks[0] - truth, axis=1).max() < 0.03 * EYES * max(1, scale)
    (crop,) = align_crops([photo], seen.landmarks)
    for (x, y), (found_x, found_y) in zip(TEMPLATE, brightest(crop), strict=True):
        assert np.hypot(x - found_x, y - found_y) < 1.5


def brightest(crop: NDArray[np.uint8]) -> Iterator[tuple[float, float]]:
    """The middle of the pixels of each dot's colour."""
    from tests.support.dotted_landmarks import COLOURS

    for colour in COLOURS:
        near = np.abs(crop.astype(int) - colour).sum(axis=2) < 150
        rows, columns = np.nonzero(near)
        yield float(columns.mean()), float(rows.mean())


def test_the_faces_of_several_photos_go_through_one_batch_and_come_back_in_order(second_look: SecondLook) -> None:
    first, second = place((60, 70), 5), place((180, 170), -15)
    both = draw_dots(260, 260, first, 3) | draw_dots(260, 260, second, 3)
    alone = draw_dots(300, 200, place((90, 100)), 3)
    shifted = [faces_of(first + 4, second - 5), faces_of(place((90, 100)) + 3), faces_of(first).take([])]
    two, one, none = second_look.improve([both, alone, both], shifted)
    np.testing.assert_allclose(two.landmarks, [first, second], atol=0.7)
    np.testing.assert_allclose(one.landmarks, [place((90, 100))], atol=0.7)
    assert len(none) == 0
    np.testing.assert_array_equal(two.boxes, shifted[0].boxes)


def test_an_aligned_crop_keeps_the_landmarks_of_the_template(second_look: SecondLook) -> None:
    photo = draw_dots(112, 112, place((50, 60)), 3)
    (face,) = second_look.improve([photo], [face_of_crop(112)])
    np.testing.assert_array_equal(face.landmarks, face_of_crop(112).landmarks)


def test_the_first_look_stays_where_the_network_is_unsure(second_look: SecondLook) -> None:
    first = place((90, 90), 12)
    (face,) = second_look.improve([np.zeros((200, 200, 3), np.uint8)], [faces_of(first)])
    np.testing.assert_array_equal(face.landmarks[0], first)


def answer_with(landmarks: NDArray[np.floating], doubt: float = -3.0) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(landmarks), np.full(5, doubt)]).astype(np.float32)


def test_an_absurd_answer_is_not_taken() -> None:
    first = place((100, 100))
    upside_down = template(SIDE, MARGIN)[[3, 4, 2, 0, 1]]  # the eyes below the mouth
    (kept,) = refine(first[None], SIDE, lambda faces, places: answer_with(upside_down)[None])
    np.testing.assert_array_equal(kept, first)


@pytest.mark.parametrize(("doubt_turned", "is_turned"), [(-3.0, True), (-1.0, False)])
def test_an_upside_down_face_is_turned_if_the_network_is_surer_of_it(doubt_turned: float, is_turned: bool) -> None:
    first, right = place((100, 100)), template(SIDE, MARGIN)

    def see(faces: NDArray[np.int64], places: NDArray[np.float32]) -> NDArray[np.float32]:
        eyes_below_mouth = places[:, :2, 1].mean(axis=1) > places[:, 3:, 1].mean(axis=1)
        return np.stack([answer_with(right, doubt_turned if turned else -1.5) for turned in eyes_below_mouth])

    (refined,) = refine(first[None], SIDE, see)
    turned = 2 * first.mean(axis=0) - first
    np.testing.assert_allclose(refined, turned if is_turned else first, atol=1e-2)


def test_only_faces_that_move_far_are_looked_at_a_third_time() -> None:
    right = template(SIDE, MARGIN)
    looks: list[list[int]] = []

    def see(faces: NDArray[np.int64], places: NDArray[np.float32]) -> NDArray[np.float32]:
        looks.append(faces.tolist())
        first_time = len(looks) == 1
        moved = [right + (10 if index == 1 and first_time else 0.5) for index in faces]
        return np.stack([answer_with(points) for points in moved])

    first = np.stack([place((100, 100)), place((90, 80)), place((70, 90))])
    refined = refine(first, SIDE, see)
    assert looks == [[0, 1, 2], [1]]
    pixel = 112 * MARGIN / SIDE  # of a square, in the photo
    np.testing.assert_allclose(refined - first, np.array([0.5, 10.5, 0.5])[:, None, None] * pixel + np.zeros((3, 5, 2)),
                               atol=1e-3)  # fmt: skip


def test_coincident_landmarks_place_no_square_and_stay() -> None:
    first = np.full((1, 5, 2), 40, np.float32)
    refined = refine(first, SIDE, lambda faces, places: answer_with(template(SIDE, MARGIN))[None])
    np.testing.assert_array_equal(refined, first)


def test_the_fit_of_the_template_is_zero_wherever_it_stands() -> None:
    places = np.stack([place((0, 0)), place((500, 90), 77, 0.2), place((-30, 8), -160, 9.0)])
    np.testing.assert_allclose(fit(places), 0, atol=1e-5)


def test_the_fit_is_the_mean_distance_in_distances_between_the_eyes() -> None:
    off = TEMPLATE.copy()
    off[2] += (0, 10)  # the nose alone; the best similarity hardly moves
    assert fit(off[None])[0] == pytest.approx(10 / EYES / 5, rel=0.7)
    profile = TEMPLATE.copy()
    profile[:, 0] = TEMPLATE[:, 0] * 0.4
    mirrored = TEMPLATE * (-1, 1)  # left and right exchanged
    values = fit(np.stack([off, profile, mirrored, np.full((5, 2), 3.0)]))
    assert 0 < values[0] < values[1] < values[2] <= 1
    assert values[3] == 1
