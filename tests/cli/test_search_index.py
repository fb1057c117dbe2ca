"""The index options of search: files, reported recall, refusals."""

from __future__ import annotations

import csv
import io
import json
import os
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


def nearby_suffixes(people: Path) -> set[str]:
    return {path.name.removeprefix("people.h5") for path in people.parent.glob("people.h5.*")}


@pytest.mark.slow
def test_auto_searches_a_small_file_exactly(people: Path, query: Path) -> None:
    result = facemill("search", people, query, "--latency", "0.001")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "index: flat (exact)"
    (line,) = map(json.loads, facemill("search", people, query, "--json").stdout.splitlines())
    assert line["index"] == {"kind": "flat", "exact": True}
    assert not [name for name in nearby_suffixes(people) if name.startswith(".faiss-")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sq8", "ivf"])
def test_an_index_reports_its_recall(people: Path, query: Path, kind: str) -> None:
    result = facemill("search", people, query, "-k", "5", "--index", kind)
    assert result.returncode == 0, result.stderr
    assert f"{people}.faiss-{kind}" in result.stderr
    assert {f".faiss-{kind}", f".faiss-{kind}.json"} <= nearby_suffixes(people)
    footer = result.stdout.splitlines()[-1]
    assert re.fullmatch(
        rf"index: {kind} \(16 dimensions,.* \d+ re-ranked\): recall@50 (0\.99\d|1\.000) on 200 sampled rows, "
        r"\d+\.\d ms; exact: \d+\.\d ms",
        footer,
    )
    repeated = facemill("search", people, query, "-k", "5", "--index", kind, "--json")
    assert f"{people}.faiss-{kind}" not in repeated.stderr
    line = json.loads(repeated.stdout)
    assert line["index"]["kind"] == kind
    assert line["index"]["exact"] is False
    assert line["index"]["recall"] >= 0.99
    assert line["index"]["k"] == 50
    assert line["index"]["parameters"]["dimensions"] == 16
    exact = json.loads(facemill("search", people, query, "-k", "5", "--index", "flat", "--json").stdout)
    assert line["hits"][0] == exact["hits"][0]
    assert line["hits"][0]["score"] == 1


def test_csv_prints_the_index_on_stderr(people: Path, query: Path) -> None:
    result = facemill("search", people, query, "-k", "3", "--index", "sq8", "--csv")
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == 3
    assert "index: sq8 (" in result.stderr


@pytest.mark.slow
def test_a_larger_k_is_measured(people: Path, query: Path) -> None:
    facemill("search", people, query, "--index", "ivf")
    result = facemill("search", people, query, "--index", "ivf", "-k", "70", "--json")
    assert_names(result.stderr, f"{people}.faiss-ivf", 70)
    line = json.loads(result.stdout)
    assert len(line["hits"]) == 70
    assert line["index"]["k"] == 70


@pytest.mark.slow
def test_wrong_options_are_refused(people: Path, query: Path, photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for options in (["--index", "tree"], ["--latency", "0"], ["--latency", "soon"]):
        assert facemill("search", people, query, *options).returncode == 2, options
    result = facemill("search", people, query, "--index", "sq8", "--device", "gpu")
    assert_refused(result, "E-CONFIG", "gpu", "sq8", "--index flat", "--device cpu")
    (tmp_path / "in").mkdir()
    shutil.copy(query, tmp_path / "in" / "one.jpg")
    assert facemill("process", tmp_path / "in", "-o", tmp_path / "few.h5", "--engine", tiny_engine).returncode == 0
    result = facemill("search", tmp_path / "few.h5", query, "--index", "ivf")
    assert_refused(result, "E-CONFIG", 1, "ivf", 256, "--index flat")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "sq8", "ivf"])
@pytest.mark.parametrize("place", [b"\xff.h5", b"d\xff/people.h5"])
def test_a_file_whose_path_is_not_utf8_is_searched(
    place: bytes, kind: str, people: Path, query: Path, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(place)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(people, path)
    expected = json.loads(facemill("search", people, query, "--json", "--index", kind).stdout)
    for _ in range(2):  # the index is built, then read
        result = facemill("search", path, query, "--json", "--index", kind)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["hits"] == expected["hits"]
    index = path.with_name(path.name + (".faiss" if kind == "flat" else f".faiss-{kind}"))
    assert index.stat().st_size
