"""Landmarks to crops: the similarity compared with its definition, the warp with OpenCV and scikit-image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError
from runtime.faces.align import TEMPLATE, align_crops, invert, similarity, template, transform_points
from tests.support import encoded_images as make
from tests.support.errors import raises


def umeyama(points: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3), as in Umeyama's paper, by singular values."""
    mean_p, mean_t = points.mean(0), target.mean(0)
    p, t = points - mean_p, target - mean_t
    u, s, vt = np.linalg.svd(t.T @ p)
    d = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * d) @ vt
    scale = (s * d).sum() / (p**2).sum()
    return np.hstack([scale * rotation, (mean_t - scale * rotation @ mean_p)[:, None]])


def test_the_similarity_equals_umeyamas() -> None:
    rng = np.random.default_rng(0)
    turned = np.array([[0, -3], [3, 0]])
    points = np.stack([TEMPLATE + rng.normal(0, spread, (5, 2)) for spread in (0, 1, 5, 20) for _ in range(25)])
    points[::2] = points[::2] @ turned + 200
    points[::7, :, 0] *= -1  # a mirror image: the best rotation is still found
    matrix = similarity(points)
    np.testing.assert_allclose(matrix, [umeyama(p, TEMPLATE) for p in points], atol=1e-9)


def test_the_similarity_recovers_a_transform_and_its_inverse() -> None:
    angle, scale = 0.4, 1.7
    matrix = np.array(
        [[scale * np.cos(angle), -scale * np.sin(angle), 30], [scale * np.sin(angle), scale * np.cos(angle), -7]]
    )
    back = similarity(transform_points(TEMPLATE[None], matrix[None]))
    np.testing.assert_allclose(invert(back)[0], matrix, atol=1e-9)
    np.testing.assert_allclose(
        transform_points(transform_points(TEMPLATE[None], matrix[None]), back), TEMPLATE[None], atol=1e-9
    )


def test_the_template_scales_with_the_crop_size() -> None:
    np.testing.assert_array_equal(template(112), TEMPLATE)
    np.testing.assert_allclose((template(224) + 0.5) / 224, (TEMPLATE + 0.5) / 112)


def test_wrong_landmarks_are_refused() -> None:
    with raises(ConfigError, "(5, 2)", "(N, 5, 2)"):
        similarity(TEMPLATE)


@pytest.mark.slow
def test_the_warp_equals_opencvs_and_scikit_images() -> None:
    transform = pytest.importorskip(
        "skimage.transform", reason="scikit-image is not installed: pip install scikit-image"
    )
    image = make.scene(300, 240)
    landmarks = TEMPLATE * 1.4 + [60, 40] + np.random.default_rng(1).normal(0, 2, (5, 2))
    ours = align_crops([image], landmarks[None])[0].astype(float)
    estimate = getattr(transform.SimilarityTransform, "from_estimate", None)  # of scikit-image 0.26
    theirs = estimate(landmarks, TEMPLATE) if estimate else transform.SimilarityTransform()
    assert estimate or theirs.estimate(landmarks, TEMPLATE)
    by_opencv = cv2.warpAffine(image, theirs.params[:2], (112, 112)).astype(float)
    assert np.abs(ours - by_opencv).mean() < 0.05
    by_scikit = transform.warp(image, theirs.inverse, output_shape=(112, 112), preserve_range=True)
    assert np.abs(ours - by_scikit).mean() < 1


def test_each_face_of_many_pictures_gets_its_crop() -> None:
    rng = np.random.default_rng(2)
    images = [make.scene(112, 112, seed) for seed in range(3)]
    larger = [cv2.resize(image, (224, 224), interpolation=cv2.INTER_LINEAR) for image in images]
    places = rng.integers(10, 90, (3, 2))
    photos = []
    for image, (x, y) in zip(larger, places, strict=True):
        photo = np.zeros((320, 330, 3), np.uint8)
        photo[y : y + 224, x : x + 224] = image
        photos.append(photo)
    landmarks = (TEMPLATE + 0.5) * 2 - 0.5 + places[:, None]
    crops = align_crops(photos, landmarks)
    assert crops.shape == (3, 112, 112, 3)
    assert np.abs(crops[:, 2:-2, 2:-2].astype(int) - np.stack(images)[:, 2:-2, 2:-2]).mean() < 3


def test_pixels_outside_are_black_and_coinciding_landmarks_are_no_face() -> None:
    white = np.full((112, 112, 3), 255, np.uint8)
    (crop,) = align_crops([white], TEMPLATE[None] + [56, 0])
    assert crop[:, :50].min() == 255
    assert crop[:, 60:].max() == 0
    assert not align_crops([white], np.full((1, 5, 2), 40.0)).any()


@pytest.mark.parametrize("scale", [2.1, 4.0, 7.3, 13.0])
def test_grain_of_a_large_face_is_averaged(scale: float) -> None:
    rng = np.random.default_rng(5)
    side = round(112 * scale)
    grain = np.clip(rng.normal(128, 40, (side + 37, side + 11, 3)), 0, 255).astype(np.uint8)
    (crop,) = align_crops([grain], ((TEMPLATE + 0.5) * scale - 0.5)[None])
    merged = 2 ** int(np.log2(scale))
    assert crop[2:-2, 2:-2].std() < 1.2 * 40 / merged


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 2.0, 3.1, 6.0, 9.7])
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.8])
def test_large_and_small_faces_are_aligned_equally(scale: float, angle: float) -> None:
    """A smooth picture drawn at two sizes gives the same crop, so halving shifts nothing."""

    def draw(side: int, zoom: float) -> NDArray[np.uint8]:
        y, x = (np.mgrid[:side, :side] + 0.5) / zoom
        waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((23, 31), (17, -29), (-37, 19))]
        return np.stack(waves, axis=-1).astype(np.uint8)

    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE + 0.5 - 56) @ turn + 90  # in a picture of 180 pixels, edges at whole numbers
    (small,) = align_crops([draw(180, 1.0)], (points - 0.5)[None])
    (large,) = align_crops([draw(round(180 * scale), scale)], (points * scale - 0.5)[None])
    assert np.abs(small[8:-8, 8:-8].astype(int) - large[8:-8, 8:-8]).max() <= 4
