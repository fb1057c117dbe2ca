"""How large, sharp and frontal a face is: directions, scale and edges of the measures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.demo import portraits
from runtime.faces.align import TEMPLATE
from runtime.faces.quality import frontal, interocular, sharpness

SIDE = 112


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    """(4, 112, 112, 3), of four people."""
    return np.stack([portraits.portrait(0, person, 0, (SIDE, SIDE)) for person in range(4)])


def blurred(crops: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in crops]).astype(np.uint8)


def checkers(low: int, high: int) -> NDArray[np.uint8]:
    """(1, 112, 112, 3) grey fields of one pixel, by turns."""
    y, x = np.indices((SIDE, SIDE))
    grey = np.where((x + y) % 2, high, low).astype(np.uint8)
    return np.repeat(grey[None, :, :, None], 3, axis=3)


def test_one_value_a_crop(crops: NDArray[np.uint8]) -> None:
    found = sharpness(crops)
    assert found.shape == (4,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert sharpness(crops[:0]).shape == (0,)
    np.testing.assert_array_equal(sharpness(crops[2:3]), found[2:3])  # each for itself


def test_the_more_blurred_the_less_sharp(crops: NDArray[np.uint8]) -> None:
    grades = np.stack([sharpness(some) for some in (crops, blurred(crops, 1), blurred(crops, 2), blurred(crops, 4))])
    assert (np.diff(grades, axis=0) < 0).all()
    assert (grades[1] < 0.5 * grades[0]).all()
    assert (grades[-1] < 20).all()  # what docs/faces.md says of blurred faces


def test_the_scale_is_grey_levels_squared(crops: NDArray[np.uint8]) -> None:
    assert sharpness(np.full((1, SIDE, SIDE, 3), 130, np.uint8)).tolist() == [0]
    # The Laplacian of fields of one pixel that differ by d is 4 d, upwards and downwards by turns.
    np.testing.assert_allclose(sharpness(checkers(100, 110)), [(4 * 10) ** 2], rtol=0.01)
    np.testing.assert_allclose(sharpness(checkers(100, 120)), [(4 * 20) ** 2], rtol=0.01)
    brighter = np.clip(crops.astype(np.int64) // 2 + 60, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(sharpness(brighter), sharpness(crops // 2), rtol=0.01)  # light does not count


def test_surroundings_do_not_count(crops: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, crops.shape, np.uint8)
    edge = 20  # of 112: the middle 64 % lies within
    noise[:, edge:-edge, edge:-edge] = crops[:, edge:-edge, edge:-edge]
    np.testing.assert_allclose(sharpness(noise), sharpness(crops), rtol=1e-6)
    noise[:, 50:60, 50:60] = 255 - noise[:, 50:60, 50:60]
    assert (sharpness(noise) != sharpness(crops)).all()


def turned(landmarks: NDArray[np.floating], degrees: float) -> NDArray[np.floating]:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return landmarks @ turn.T


def test_the_distance_of_the_eyes_is_in_pixels() -> None:
    faces = np.stack([TEMPLATE, 3 * TEMPLATE, turned(TEMPLATE, 40)])
    across = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
    np.testing.assert_allclose(interocular(faces), [across, 3 * across, across], rtol=1e-5)
    assert interocular(faces).dtype == np.float32


def test_frontality_falls_with_a_turn_of_the_head_alone() -> None:
    eyes = np.array([[0, 0], [60, 0]], np.float32)

    def face(nose: tuple[float, float]) -> NDArray[np.float32]:
        return np.concatenate([eyes, np.array([nose, (10, 70), (50, 70)], np.float32)])

    ahead, nodding, aside, far, profile, beyond = (
        face(nose) for nose in ((30, 40), (30, 20), (20, 40), (10, 40), (0, 40), (-15, 40))
    )
    found = frontal(np.stack([ahead, nodding, aside, far, profile, beyond]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(frontal(np.stack([turned(aside, 30), 5 * aside])), [0.5, 0.5], atol=1e-6)
    assert frontal(np.zeros((1, 5, 2), np.float32)).tolist() == [0]  # eyes in one point: no division by zero
