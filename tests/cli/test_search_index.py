"""The search command's choice of an index: what is made, what is said of it, what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.errors import assert_names, assert_refused
from tests.support.facemill_command import facemill


@pytest.fixture(scope="module")
def people(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("indexes") / "people.h5"
    assert facemill("process", photos, "-o", path, "--engine", tiny_engine).returncode == 0
    return path


@pytest.fixture(scope="module")
def query(photos: Path) -> Path:
    return photos / "0" / "p0000.jpg"


def beside(people: Path) -> set[str]:
    return {path.name.removeprefix("people.h5") for path in people.parent.glob("people.h5.*")}


def test_auto_searches_a_small_file_exactly(people: Path, query: Path) -> None:
    done = facemill("search", people, query, "--latency", "0.001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "index: flat (exact)"
    (line,) = map(json.loads, facemill("search", people, query, "--json").stdout.splitlines())
    assert line["index"] == {"kind": "flat", "exact": True}
    assert not [name for name in beside(people) if name.startswith(".faiss-")]


@pytest.mark.parametrize("kind", ["sq8", "ivf"])
def test_a_named_index_says_what_it_finds(people: Path, query: Path, kind: str) -> None:
    done = facemill("search", people, query, "-k", "5", "--index", kind)
    assert done.returncode == 0, done.stderr
    assert f"{people}.faiss-{kind}" in done.stderr
    assert {f".faiss-{kind}", f".faiss-{kind}.json"} <= beside(people)
    footer = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        rf"index: {kind} \(16 dimensions,.* \d+ re-ranked\): recall@50 (0\.99\d|1\.000) on 200 sampled rows, "
        r"\d+\.\d ms; exact: \d+\.\d ms",
        footer,
    )
    again = facemill("search", people, query, "-k", "5", "--index", kind, "--json")
    assert f"{people}.faiss-{kind}" not in again.stderr
    line = json.loads(again.stdout)
    assert line["index"]["kind"] == kind
    assert line["index"]["exact"] is False
    assert line["index"]["recall"] >= 0.99
    assert line["index"]["k"] == 50
    assert line["index"]["parameters"]["dimensions"] == 16
    exact = json.loads(facemill("search", people, query, "-k", "5", "--index", "flat", "--json").stdout)
    assert line["hits"][0] == exact["hits"][0]
    assert line["hits"][0]["score"] == 1


def test_csv_has_its_place_on_stderr(people: Path, query: Path) -> None:
    done = facemill("search", people, query, "-k", "3", "--index", "sq8", "--csv")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 3
    assert "index: sq8 (" in done.stderr


def test_more_hits_are_measured_for(people: Path, query: Path) -> None:
    facemill("search", people, query, "--index", "ivf")
    done = facemill("search", people, query, "--index", "ivf", "-k", "70", "--json")
    assert_names(done.stderr, f"{people}.faiss-ivf", 70)
    line = json.loads(done.stdout)
    assert len(line["hits"]) == 70
    assert line["index"]["k"] == 70


def test_refusals(people: Path, query: Path, photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for wrong in (["--index", "tree"], ["--latency", "0"], ["--latency", "soon"]):
        assert facemill("search", people, query, *wrong).returncode == 2, wrong
    done = facemill("search", people, query, "--index", "sq8", "--device", "gpu")
    assert_refused(done, "E-CONFIG", "gpu", "sq8", "--index flat", "--device cpu")
    (tmp_path / "in").mkdir()
    shutil.copy(query, tmp_path / "in" / "one.jpg")
    assert facemill("process", tmp_path / "in", "-o", tmp_path / "few.h5", "--engine", tiny_engine).returncode == 0
    done = facemill("search", tmp_path / "few.h5", query, "--index", "ivf")
    assert_refused(done, "E-CONFIG", 1, "ivf", 256, "--index flat")
