"""Thumbnails are small JPEGs of a whole photo or a face; a missing photo gives none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.images.decode import Limits
from runtime.pages.thumbnails import thumbnail, thumbnails
from runtime.records import Box, FacePlace
from tests.support import encoded_images as make

SIDE = 88
GREEN, RED = (0, 200, 0), (200, 0, 0)


def decode_jpeg(jpeg: bytes | None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB."""
    assert jpeg is not None
    assert jpeg.startswith(b"\xff\xd8\xff")
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB))


@pytest.fixture
def two_faces(tmp_path: Path) -> bytes:
    """A photo of 2,000 x 1,500 with a green and a red square of 100 on grey."""
    pixels = np.full((1500, 2000, 3), 128, np.uint8)
    pixels[200:300, 300:400] = GREEN
    pixels[1000:1100, 1600:1700] = RED
    path = tmp_path / "two.jpg"
    path.write_bytes(make.encode(pixels))
    return bytes(path)


@pytest.mark.parametrize(("height", "width", "shape"), [(160, 120, (88, 66)), (60, 400, (13, 88)), (40, 30, (40, 30))])
def test_a_whole_photo_keeps_its_proportions(tmp_path: Path, height: int, width: int, shape: tuple[int, int]) -> None:
    pixels = make.scene(height, width)
    (tmp_path / "a.png").write_bytes(make.encode(pixels, "PNG"))
    image = decode_jpeg(thumbnail(bytes(tmp_path / "a.png"), None, Limits(), side=SIDE))
    assert image.shape[:2] == shape
    expected = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make.encode(make.STORED[6](make.scene(160, 120)), orientation=6))
    assert decode_jpeg(thumbnail(bytes(tmp_path / "a.jpg"), None, Limits(), side=SIDE)).shape[:2] == (88, 66)


def test_each_face_of_a_photo_has_its_own_picture(two_faces: bytes) -> None:
    faces = [FacePlace(0, (300, 200, 400, 300)), FacePlace(1, (1600, 1000, 1700, 1100))]
    pictures = [decode_jpeg(jpeg) for jpeg in thumbnails([two_faces] * 2, faces, Limits(), side=SIDE)]
    for picture, colour in zip(pictures, (GREEN, RED), strict=True):
        assert max(picture.shape[:2]) == SIDE  # although the decoder first reduces such a large photo
        assert np.abs(picture[44, 44].astype(int) - colour).max() < 12
        assert np.abs(picture[2, 2].astype(int) - 128).max() < 12  # the margin


def test_a_larger_picture_shows_more_detail(two_faces: bytes) -> None:
    """The decoder's reduction for a small thumbnail would lose this detail."""
    picture = decode_jpeg(thumbnail(two_faces, FacePlace(0, (300, 200, 400, 300)), Limits(), side=140))
    assert picture.shape == (140, 140, 3)
    assert np.abs(picture[70, 70].astype(int) - GREEN).max() < 12


def test_a_box_over_the_edge_is_clipped(two_faces: bytes) -> None:
    picture = decode_jpeg(thumbnail(two_faces, FacePlace(0, (-50, 200, 350, 300)), Limits(), side=SIDE))
    assert picture.shape[1] == SIDE
    assert picture.shape[0] < SIDE


@pytest.mark.parametrize("edges", [(5000, 5000, 5100, 5100), (9, 9, 9, 9), (np.nan,) * 4, (-np.inf, 0, np.inf, np.nan)])
def test_an_empty_box_gives_no_picture(two_faces: bytes, edges: Box) -> None:
    assert thumbnail(two_faces, FacePlace(0, edges), Limits(), side=SIDE) is None


def test_a_missing_damaged_or_oversized_photo_gives_no_picture(tmp_path: Path, two_faces: bytes) -> None:
    (tmp_path / "text.jpg").write_text("no photograph")
    paths = [bytes(tmp_path / name) for name in ("gone.jpg", "text.jpg")] + [bytes(tmp_path), two_faces]
    jpegs = thumbnails(paths, [None] * 4, Limits(), side=SIDE)
    assert [jpeg is None for jpeg in jpegs] == [True, True, True, False]
    assert thumbnail(two_faces, None, Limits(max_pixels=1000), side=SIDE) is None
