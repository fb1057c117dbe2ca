"""A picture of exactly the crop's size is an aligned crop only where no face stands elsewhere than on the template."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.demo.portraits import portrait
from runtime.faces.align import align_crops, template
from runtime.faces.detectors import Faces
from runtime.faces.selection import face_of_crop, is_crop
from tests.support import encoded_images as make
from tests.support.errors import assert_names
from tests.support.facemill_command import facemill, summary


def face(landmarks: np.ndarray) -> Faces:
    one = np.ones(1, np.float32)
    return Faces(one, np.array([[0, 0, 112, 112]], np.float32), landmarks[None].astype(np.float32), one)


@pytest.mark.parametrize("size", [112, 128])
def test_a_face_on_the_template_makes_a_crop(size: int) -> None:
    places = template(size)
    assert is_crop(face_of_crop(size), size)
    assert is_crop(face(places + 0.05 * size), size)
    assert is_crop(face(places).take([]), size)  # blurred or covered: nothing speaks against it
    assert not is_crop(face(places * 0.5), size)
    assert not is_crop(face(places + 0.2 * size), size)


@pytest.mark.slow
def test_a_square_portrait_of_the_size_of_a_crop_is_a_photo(tiny_engine: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    large = portrait(0, 1, 0, (300, 400))
    (photos / "large.png").write_bytes(make.encode(large, "PNG"))
    square = np.full((112, 112, 3), 120, np.uint8)
    square[:, :84] = portrait(0, 1, 0, (84, 112))
    (photos / "square.png").write_bytes(make.encode(square, "PNG"))
    first = tmp_path / "first.h5"
    summary(facemill("process", photos, "-o", first, "--engine", tiny_engine, "--align", "detect", "--json"))
    with h5py.File(first) as file:
        landmarks = file["faces/landmarks"][0]
    crop = align_crops([large], landmarks[None], size=112)[0]
    (photos / "crop.png").write_bytes(make.encode(crop, "PNG"))
    (photos / "scene.png").write_bytes(make.encode(make.scene(112, 112), "PNG"))  # no face: nothing speaks against it
    result = facemill("process", photos, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--json")
    assert summary(result)["embedded"] == 4
    (line,) = (line for line in result.stderr.splitlines() if "aligned crops" in line)
    assert_names(line, 2)
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["image_paths"].asstr()[:].tolist() == ["crop.png", "large.png", "scene.png", "square.png"]
        assert np.isnan(file["faces/score"][:]).tolist() == [True, False, True, False]
        vectors = file["embeddings"][:]
        assert vectors[0] @ vectors[1] > 0.99  # the crop of a photo is the photo
