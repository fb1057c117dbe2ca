"""Training crops aligned anew by the second look: a turned face comes back, a crop without a face stays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.demo.portraits import encode
from tests.support.facemill_command import ROOT
from tests.support.training_extra import torch_of_extra

torch_of_extra()

LANDMARKS = ROOT / "models" / "facemill-landmarks.toml"


def crops_of(people: int) -> NDArray[np.uint8]:
    """(N, 112, 112, 3) uint8 RGB: the middle of generated portraits."""
    photos = [
        cv2.imdecode(np.frombuffer(encode(0, i, 0, (112, 112)), np.uint8), cv2.IMREAD_COLOR_RGB) for i in range(people)
    ]
    return np.stack(photos)


def turn(crop: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    matrix = cv2.getRotationMatrix2D((55.5, 55.5), degrees, 1.0)
    return cv2.warpAffine(crop, matrix, (112, 112), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def distance(crops: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N,) mean difference of the middles, in grey levels."""
    middle = np.s_[:, 24:88, 24:88]
    return np.abs(crops[middle].astype(float) - others[middle]).mean(axis=(1, 2, 3))


def test_turned_faces_come_back(tmp_path: Path) -> None:
    from training.realign import realign

    aligned = np.array(realign(crops_of(12), LANDMARKS, tmp_path / "aligned.npy"))
    turned = np.stack([turn(crop, 15) for crop in aligned])
    back = realign(turned, LANDMARKS, tmp_path / "back.npy")
    assert np.median(distance(back, aligned)) < np.median(distance(turned, aligned)) / 2


def test_a_crop_without_a_face_stays_and_the_file_is_read_again(tmp_path: Path) -> None:
    from training.realign import realign

    noise = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    path = tmp_path / "cache" / "aligned.npy"
    assert (realign(noise, LANDMARKS, path) == noise).all()
    assert (realign(crops_of(2), LANDMARKS, path) == noise).all()


def test_other_weights_have_another_file(tmp_path: Path) -> None:
    from training.realign import realigned_path

    other = tmp_path / "other.toml"
    text = LANDMARKS.read_text()
    digest = text.split('sha256 = "')[1][:64]
    other.write_text(text.replace(digest, "0" * 64))
    assert realigned_path(tmp_path, "key", LANDMARKS) != realigned_path(tmp_path, "key", other)
    assert realigned_path(tmp_path, "key", LANDMARKS) != realigned_path(tmp_path, "yek", LANDMARKS)
