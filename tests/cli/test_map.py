"""The map command: its page, its counts, its refusals."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import h5py
import pytest

from runtime.pipeline.request import UNTRAINED_WARNING
from runtime.records import FACE, FACE_DATASETS
from tests.support import encoded_images as make
from tests.support.errors import Values, assert_refused
from tests.support.extras import require_package
from tests.support.facemill_command import facemill

require_package("plotly", "map")
require_package("sklearn", "map")
EVIL = '<img src=x onerror="alert(1)">&\x1b[31m\u202e\n'


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed photos in three folders, one with a hostile name; one photo is deleted afterwards."""
    folder = tmp_path_factory.mktemp("map")
    for i in range(30):
        path = folder / "in" / f"folder {i % 2}" / f"p{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make.encode(make.scene(112, 112, seed=i)))
    (folder / "in" / EVIL).mkdir()
    (folder / "in" / EVIL / "a.jpg").write_bytes(make.encode(make.scene(112, 112, seed=99)))
    with open(os.path.join(os.fsencode(folder), b"in", b"raw\xff.jpg"), "wb") as file:
        file.write(make.encode(make.scene(112, 112, seed=97)))
    assert facemill("process", folder / "in", "-o", folder / "people.h5", "--engine", tiny_engine).returncode == 0
    (folder / "in" / "folder 0" / "p4.jpg").unlink()
    return folder / "people.h5"


def draw(*arguments: object) -> CompletedProcess[str]:
    return facemill("map", *arguments)


def read_data(page: Path) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


@pytest.mark.slow
def test_a_map_shows_every_embedding(people: Path, tmp_path: Path) -> None:
    result = draw(people, "-o", tmp_path / "map.html")
    assert result.returncode == 0, result.stderr
    expected = f"{tmp_path / 'map.html'}: all 32 embeddings, 3 folders, 1 without a picture"
    assert result.stdout.startswith(expected)
    assert UNTRAINED_WARNING in result.stderr
    points = read_data(tmp_path / "map.html")["points"]
    assert len(points["path"]) == 32
    assert "raw\\xff.jpg" in points["path"]
    missing_row = points["path"].index("folder 0/p4.jpg")
    assert points["picture"][missing_row] == ""
    assert points["note"][missing_row] == "the photo cannot be shown"
    for i, picture in enumerate(points["picture"]):
        assert i == missing_row or base64.b64decode(picture).startswith(b"\xff\xd8\xff")
    page = (tmp_path / "map.html").read_text()
    for text in ("all 32 embeddings", "32 photos in the file", "model tiny", "identify nobody", "not distances"):
        assert text in page


@pytest.mark.slow
def test_the_same_seed_gives_the_same_page(people: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert draw(people, "-o", tmp_path / f"{name}.html", "--seed", seed, "--limit", 20).returncode == 0
    pages = [(tmp_path / f"{name}.html").read_bytes() for name in "abc"]
    assert pages[0] == pages[1] != pages[2]


@pytest.mark.slow
def test_limit_shows_a_counted_sample(people: Path, tmp_path: Path) -> None:
    result = draw(people, "-o", tmp_path / "map.html", "--limit", 10, "--color", "cluster", "--no-thumbnails")
    assert result.returncode == 0, result.stderr
    assert re.search(r"10 of 32 embeddings, \d+ clusters?\n", result.stdout)
    assert "10 of 32 embeddings" in result.stderr
    data = read_data(tmp_path / "map.html")
    assert data["points"]["picture"] == [""] * 10
    assert data["points"]["note"] == [""] * 10  # without thumbnails, no picture counts as missing
    assert sum(len(trace["x"]) for trace in data["figure"]["data"]) == 10


@pytest.mark.slow
def test_each_face_of_a_photo_is_a_point(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    path.write_bytes(people.read_bytes())
    with h5py.File(path, "r+") as file:
        count = len(file["embeddings"])
        for name, dataset in FACE_DATASETS.items():
            del file[dataset]
            file.create_dataset(dataset, (count, *FACE[name].shape), FACE[name].base)
        file["faces/box"][:] = (20, 20, 60, 100)  # the photos have 112x112 pixels
        file["face_index"][3] = 1
        file["image_paths"][3] = file["image_paths"][2]
    assert draw(path, "-o", tmp_path / "map.html").returncode == 0
    points = read_data(tmp_path / "map.html")["points"]
    assert points["path"][2] == points["path"][3]
    assert points["note"][2:4] == ["", "face 2 in it"]
    assert points["picture"][2] == points["picture"][3] != points["picture"][4]


@pytest.mark.slow
def test_a_page_is_overwritten_only_with_force(people: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    page.write_text("mine")
    result = draw(people, "-o", page)
    assert_refused(result, "E-EXISTS", page, "-o", "--force")
    assert page.read_text() == "mine"
    assert draw(people, "-o", page, "--no-thumbnails", "--force").returncode == 0
    assert UNTRAINED_WARNING in page.read_text()


@pytest.mark.parametrize(("name", "values"), [("map.txt", ("map.txt", ".html")), ("no/map.html", ("no",))])
def test_a_page_that_cannot_be_written_is_refused(people: Path, tmp_path: Path, name: str, values: Values) -> None:
    result = draw(people, "-o", tmp_path / name)
    assert_refused(result, "E-CONFIG", *values)


def test_a_missing_or_too_small_file_is_refused(photos: Path, tiny_engine: Path, people: Path, tmp_path: Path) -> None:
    assert_refused(draw(tmp_path / "none.h5", "-o", tmp_path / "map.html"), "E-STORAGE", tmp_path / "none.h5")
    two_photos = sorted((photos / "1").iterdir())[:2]
    assert facemill("process", *two_photos, "-o", tmp_path / "two.h5", "--engine", tiny_engine).returncode == 0
    result = draw(tmp_path / "two.h5", "-o", tmp_path / "map.html")
    assert_refused(result, "E-CONFIG", 2, 3, "facemill process")
    assert not (tmp_path / "map.html").exists()
    assert draw(people, "--limit", 2).returncode == 2


@pytest.mark.parametrize("module", ["plotly", "sklearn"])
def test_a_missing_package_is_refused_with_its_install_command(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = draw(people, "-o", tmp_path / "map.html")
    assert_refused(result, "E-PACKAGE", module, "pip install plotly scikit-learn")
    assert len(result.stderr.splitlines()) == 1
