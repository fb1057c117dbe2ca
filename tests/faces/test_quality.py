"""Size, sharpness and frontality of a face: direction, scale and limits of the measures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.demo import portraits
from runtime.faces.align import TEMPLATE
from runtime.faces.quality import exposure, frontal, interocular, sharpness

SIDE = 112


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    """(4, 112, 112, 3), of four people."""
    return np.stack([portraits.portrait(0, person, 0, (SIDE, SIDE)) for person in range(4)])


def blur(crops: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in crops]).astype(np.uint8)


def checkers(low: int, high: int) -> NDArray[np.uint8]:
    """A checkerboard of single pixels in two grey levels, (1, 112, 112, 3)."""
    y, x = np.indices((SIDE, SIDE))
    grey = np.where((x + y) % 2, high, low).astype(np.uint8)
    return np.repeat(grey[None, :, :, None], 3, axis=3)


def test_sharpness_has_one_value_per_crop(crops: NDArray[np.uint8]) -> None:
    values = sharpness(crops)
    assert values.shape == (4,)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert sharpness(crops[:0]).shape == (0,)
    np.testing.assert_array_equal(sharpness(crops[2:3]), values[2:3])  # each crop independently


def test_sharpness_falls_with_blur(crops: NDArray[np.uint8]) -> None:
    grades = np.stack([sharpness(batch) for batch in (crops, blur(crops, 1), blur(crops, 2), blur(crops, 4))])
    assert (np.diff(grades, axis=0) < 0).all()
    assert (grades[1] < 0.5 * grades[0]).all()
    assert (grades[-1] < 20).all()  # as docs/faces.md states for blurred faces


def test_sharpness_is_in_squared_grey_levels(crops: NDArray[np.uint8]) -> None:
    assert sharpness(np.full((1, SIDE, SIDE, 3), 130, np.uint8)).tolist() == [0]
    # The Laplacian of a checkerboard whose levels differ by d alternates between 4 d and -4 d.
    np.testing.assert_allclose(sharpness(checkers(100, 110)), [(4 * 10) ** 2], rtol=0.01)
    np.testing.assert_allclose(sharpness(checkers(100, 120)), [(4 * 20) ** 2], rtol=0.01)
    brighter = np.clip(crops.astype(np.int64) // 2 + 60, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(sharpness(brighter), sharpness(crops // 2), rtol=0.01)  # brightness does not matter


def test_sharpness_ignores_the_surroundings(crops: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, crops.shape, np.uint8)
    edge = 20  # of 112 pixels: contains the middle 64 %
    noise[:, edge:-edge, edge:-edge] = crops[:, edge:-edge, edge:-edge]
    np.testing.assert_allclose(sharpness(noise), sharpness(crops), rtol=1e-6)
    noise[:, 50:60, 50:60] = 255 - noise[:, 50:60, 50:60]
    assert (sharpness(noise) != sharpness(crops)).all()


def turn_head(landmarks: NDArray[np.floating], degrees: float) -> NDArray[np.floating]:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return landmarks @ turn.T


def test_the_eye_distance_is_in_pixels() -> None:
    faces = np.stack([TEMPLATE, 3 * TEMPLATE, turn_head(TEMPLATE, 40)])
    across = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
    np.testing.assert_allclose(interocular(faces), [across, 3 * across, across], rtol=1e-5)
    assert interocular(faces).dtype == np.float32


def test_frontality_falls_only_when_the_head_turns() -> None:
    eyes = np.array([[0, 0], [60, 0]], np.float32)

    def face(nose: tuple[float, float]) -> NDArray[np.float32]:
        return np.concatenate([eyes, np.array([nose, (10, 70), (50, 70)], np.float32)])

    ahead, nodding, aside, far, profile, beyond = (
        face(nose) for nose in ((30, 40), (30, 20), (20, 40), (10, 40), (0, 40), (-15, 40))
    )
    values = frontal(np.stack([ahead, nodding, aside, far, profile, beyond]))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [1, 1, 0.5, 0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(frontal(np.stack([turn_head(aside, 30), 5 * aside])), [0.5, 0.5], atol=1e-6)
    assert frontal(np.zeros((1, 5, 2), np.float32)).tolist() == [0]  # eyes in one point: no division by zero


def test_exposure_is_the_mean_and_the_range_of_grey_levels(crops: NDArray[np.uint8]) -> None:
    half = np.full((1, SIDE, SIDE, 3), 40, np.uint8)
    half[:, : SIDE // 2] = 200
    means, ranges = exposure(np.concatenate([half, np.full_like(half, 90)]))
    np.testing.assert_allclose(means, [120, 90], atol=1)
    assert ranges.tolist() == [160, 0]
    means, ranges = exposure(np.stack([crops[0], crops[0] // 2, crops[0] // 16]))
    assert (np.diff(means) < 0).all()
    assert (np.diff(ranges) < 0).all()
    np.testing.assert_allclose(exposure(crops[..., ::-1]), exposure(crops), rtol=1e-6)  # the order of channels


def test_a_few_extreme_pixels_do_not_change_the_range() -> None:
    crop = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
    crop[:, SIDE // 2, SIDE // 2 - 10 : SIDE // 2] = 255
    assert exposure(crop)[1].tolist() == [0]
