"""Sample photos: the same bytes for the same seed, similar for one person, different for two people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.demo import portraits
from runtime.demo.people import STYLES, person_of


@pytest.mark.parametrize("size", [(300, 400), (112, 112), (112, 150), (200, 160), (16, 16)])
def test_shape_and_type(size: tuple[int, int]) -> None:
    image = portraits.portrait(0, 1, 2, size)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert image.std() > 15


@pytest.mark.slow
def test_every_style_of_the_first_people_can_be_drawn() -> None:
    people = [person_of(0, i) for i in range(120)]
    assert {p.style for p in people} == set(STYLES)
    assert {p.beard for p in people} == {"none", "stubble", "full", "goatee", "moustache"}
    assert {p.glasses for p in people} == {"none", "round", "square", "half"}
    for i in range(120):
        assert portraits.portrait(0, i, 0, (64, 64)).std() > 10


def test_seed_person_and_shot_each_matter() -> None:
    reference = portraits.encode(5, 0, 0, (112, 112))
    assert portraits.encode(5, 0, 0, (112, 112)) == reference
    variants = [portraits.encode(*identity, (112, 112)) for identity in ((6, 0, 0), (5, 1, 0), (5, 0, 1))]
    assert len({reference, *variants}) == 4


@pytest.mark.slow
def test_one_process_and_two_give_the_same_bytes(tmp_path: Path) -> None:
    alone = portraits.write_portraits(tmp_path / "a", 52, 10, (32, 32), seed=3, workers=1)
    pool = portraits.write_portraits(tmp_path / "b", 52, 10, (32, 32), seed=3, workers=2)
    assert len(alone) == len(pool) == 520
    assert alone[13] == tmp_path / "a" / "person-00001" / "shot-3.jpg"
    for expected, got in zip(alone, pool, strict=True):
        assert expected.relative_to(tmp_path / "a") == got.relative_to(tmp_path / "b")
        assert expected.read_bytes() == got.read_bytes()


def describe(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the colours of the middle of a small picture, normalised for brightness."""
    small = cv2.resize(image, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float32)[1:11, 2:10]
    small /= small.mean()
    flat = (small - small.mean()).ravel()
    return flat / np.linalg.norm(flat)


@pytest.mark.slow
def test_shots_of_one_person_are_nearer_than_those_of_others() -> None:
    rows = np.stack([describe(portraits.portrait(0, p, s, (112, 112))) for p in range(30) for s in range(4)])
    scores = rows @ rows.T
    np.fill_diagonal(scores, -1)
    person = np.repeat(np.arange(30), 4)
    nearest = person[scores.argmax(axis=1)]
    assert (nearest == person).mean() > 0.8  # by chance: 0.03


@pytest.mark.slow
def test_the_command_writes_portraits(tmp_path: Path) -> None:
    options = ["--people", "2", "--shots", "2", "--size", "64x80"]
    command = [sys.executable, "-m", "runtime.demo.portraits", str(tmp_path / "out"), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    files = sorted((tmp_path / "out").rglob("*.jpg"))
    assert [f.name for f in files] == ["shot-0.jpg", "shot-1.jpg"] * 2
    image = cv2.imread(str(files[0]))
    assert image is not None
    assert image.shape == (80, 64, 3)
    result = subprocess.run([*command[:-1], "64"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "WIDTHxHEIGHT" in result.stderr
