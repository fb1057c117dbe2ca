"""The map command: the page of a real file, what is counted, what is refused."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner, Result

from runtime.cli.map import main
from runtime.records import FACE, FACE_DATASETS
from tests.support import encoded_images as make
from tests.support.facemill_command import facemill

pytest.importorskip("plotly", reason="plotly is not installed: pip install '.[map]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[map]'")
EVIL = '<img src=x onerror="alert(1)">&\x1b[31m\u202e\n'


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding file: three folders, the worst of names, a photograph that is gone since."""
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


def draw(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_map_of_a_real_file(people: Path, tmp_path: Path) -> None:
    done = draw(people, "-o", tmp_path / "map.html")
    assert done.exit_code == 0, done.output
    said = f"{tmp_path / 'map.html'}: all 32 embeddings, 3 folders, 1 without a picture"
    assert done.stdout.startswith(said)
    assert "identify nobody" in done.stderr
    points = data_of(tmp_path / "map.html")["points"]
    assert len(points["path"]) == 32
    assert "raw\\xff.jpg" in points["path"]
    gone = points["path"].index("folder 0/p4.jpg")
    assert points["picture"][gone] == ""
    assert points["note"][gone] == "the photograph cannot be shown"
    for i, picture in enumerate(points["picture"]):
        assert i == gone or base64.b64decode(picture).startswith(b"\xff\xd8\xff")
    text = (tmp_path / "map.html").read_text()
    for shown in ("all 32 embeddings", "32 photographs in the file", "model tiny", "identify nobody", "not distances"):
        assert shown in text


def test_the_same_seed_gives_the_same_page(people: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert draw(people, "-o", tmp_path / f"{name}.html", "--seed", seed, "--limit", 20).exit_code == 0
    pages = [(tmp_path / f"{name}.html").read_bytes() for name in "abc"]
    assert pages[0] == pages[1] != pages[2]


def test_of_many_some_are_shown_and_counted(people: Path, tmp_path: Path) -> None:
    done = draw(people, "-o", tmp_path / "map.html", "--limit", 10, "--color", "cluster", "--no-thumbnails")
    assert done.exit_code == 0, done.output
    assert re.search(r"10 of 32 embeddings, \d+ clusters?\n", done.stdout)
    assert "10 of 32 embeddings" in done.stderr
    data = data_of(tmp_path / "map.html")
    assert data["points"]["picture"] == [""] * 10
    assert data["points"]["note"] == [""] * 10  # no picture was wanted: nothing is missing
    assert sum(len(trace["x"]) for trace in data["figure"]["data"]) == 10


def test_each_face_of_a_photograph_is_a_point(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    path.write_bytes(people.read_bytes())
    with h5py.File(path, "r+") as file:
        count = len(file["embeddings"])
        for name, dataset in FACE_DATASETS.items():
            del file[dataset]
            file.create_dataset(dataset, (count, *FACE[name].shape), FACE[name].base)
        file["faces/box"][:] = (20, 20, 60, 100)  # of photographs of 112 x 112
        file["face_index"][3] = 1
        file["image_paths"][3] = file["image_paths"][2]
    assert draw(path, "-o", tmp_path / "map.html").exit_code == 0
    points = data_of(tmp_path / "map.html")["points"]
    assert points["path"][2] == points["path"][3]
    assert points["note"][2:4] == ["", "face 2 in it"]
    assert points["picture"][2] == points["picture"][3] != points["picture"][4]


def test_a_page_in_the_way_stays_without_force(people: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    page.write_text("mine")
    done = draw(people, "-o", page)
    assert done.exit_code == 1
    assert "Name another file with -o, or replace it with --force" in done.stderr
    assert page.read_text() == "mine"
    assert draw(people, "-o", page, "--no-thumbnails", "--force").exit_code == 0
    assert "identify nobody" in page.read_text()


@pytest.mark.parametrize(
    ("name", "said"), [("map.txt", "a name that ends in .html"), ("no/map.html", "there is no folder")]
)
def test_a_page_that_cannot_be_written_is_refused_first(people: Path, tmp_path: Path, name: str, said: str) -> None:
    done = draw(people, "-o", tmp_path / name)
    assert done.exit_code == 1
    assert said in done.stderr


def test_a_file_that_is_none_or_holds_too_little_is_refused(
    photos: Path, tiny_engine: Path, people: Path, tmp_path: Path
) -> None:
    assert "there is no such file" in draw(tmp_path / "none.h5", "-o", tmp_path / "map.html").stderr
    two = sorted((photos / "1").iterdir())[:2]
    assert facemill("process", *two, "-o", tmp_path / "two.h5", "--engine", tiny_engine).returncode == 0
    done = draw(tmp_path / "two.h5", "-o", tmp_path / "map.html")
    assert done.exit_code == 1
    assert "holds 2 embeddings; wanted: 3 or more" in done.stderr
    assert "facemill process" in done.stderr
    assert not (tmp_path / "map.html").exists()
    assert draw(people, "--limit", 2).exit_code == 2


@pytest.mark.parametrize("module", ["plotly", "sklearn"])
def test_a_missing_package_is_named_before_the_work(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = draw(people, "-o", tmp_path / "map.html")
    assert done.exit_code == 1
    assert f"the package '{module}' is needed" in done.stderr
    assert "pip install plotly scikit-learn" in done.stderr
    assert "arranging" not in done.stderr
