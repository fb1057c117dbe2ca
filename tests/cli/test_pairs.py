"""The pairs command: what is printed, what is written, what is refused."""

from __future__ import annotations

import csv
import os
import tarfile
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from runtime.cli.pairs import main
from runtime.pipeline.request import UNTRAINED_WARNING
from tests.support import encoded_images as make
from tests.support.duplicate_people import calibration_of, pairs_by_numpy, rows_with_duplicates, write_rows
from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import facemill

EVIL = '<img src=x onerror="alert(1)">&\x1b[31m\u202e"\n.jpg'


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding file of photographs, some of which are there twice, under the worst of names."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "in").mkdir()
    for i in range(8):
        (folder / "in" / f"p{i}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=i)))
    (folder / "in" / EVIL).write_bytes(make.encode(make.scene(112, 112, seed=3)))
    with open(os.path.join(os.fsencode(folder), b"in", b"raw\xff.jpg"), "wb") as file:
        file.write(make.encode(make.scene(112, 112, seed=5)))
    assert facemill("process", folder / "in", "-o", folder / "people.h5", "--engine", tiny_engine).returncode == 0
    return folder / "people.h5"


def pairs(*arguments: object) -> CompletedProcess[str]:
    return facemill("pairs", *arguments)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_photographs_that_are_there_twice_are_found_under_any_name(people: Path, tmp_path: Path) -> None:
    done = pairs(people, "--threshold", 0.99999, "-o", tmp_path / "o.csv", "--html", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    found = read_csv(tmp_path / "o.csv")
    assert {frozenset((line["path_a"], line["path_b"])) for line in found} == {
        frozenset((EVIL, "p3.jpg")),
        frozenset(("p5.jpg", "raw\\xff.jpg")),
    }
    assert all(float(line["score"]) > 0.99999 for line in found)
    lines = done.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'o.csv'}: 2 pairs at 0.99999 or above"
    assert lines[1] == "search: exact: every row was compared with every other"
    assert lines[2].startswith("time: ")
    assert " 45 comparisons" in lines[2]
    assert lines[3] == f"page: {tmp_path / 'r.html'}"
    assert lines[4].startswith("model: tiny (sha256 ")
    assert f"WARNING: {UNTRAINED_WARNING}" in done.stderr
    text = (tmp_path / "r.html").read_text()
    assert "model tiny (sha256 " in text
    assert "Warning: random weights" in text
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<img src=x" not in text
    assert sorted(path.name for path in people.parent.iterdir()) == ["in", "people.h5", "people.h5.pages"]


def test_a_calibration_sets_the_threshold_and_tells_what_to_expect(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    calibration = calibration_of(np.random.default_rng(0).normal(0, 0.1, 100_000).clip(-1, 1))
    path = write_rows(tmp_path / "p.h5", vectors, calibration=calibration)
    done = pairs(path, "--expected-false", 100, "-o", tmp_path / "o.csv")
    assert done.returncode == 0, done.stderr
    threshold = float(done.stdout.split(" pairs at ")[1].split()[0])
    assert calibration.expected(threshold, 300 * 299 // 2).hits <= 100
    assert "expected false pairs at the threshold: " in done.stdout
    lines = read_csv(tmp_path / "o.csv")
    assert len(lines) == len(pairs_by_numpy(vectors, threshold))
    assert max(float(line["expected_false"]) for line in lines) <= 100
    usual = pairs(path, "-o", tmp_path / "usual.csv")
    assert usual.returncode == 0
    assert threshold < float(usual.stdout.split(" pairs at ")[1].split()[0])


def test_a_budget_says_that_the_answer_is_approximate(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(1000)
    path = write_rows(tmp_path / "p.h5", vectors)
    done = facemill("pairs", path, "--threshold", 0.7, "-o", tmp_path / "o.csv", "--budget", "0.000001s")
    assert done.returncode == 0, done.stderr
    assert "search: APPROXIMATE" in done.stdout
    assert "approximate" in done.stderr
    assert 0 < len(read_csv(tmp_path / "o.csv")) <= len(pairs_by_numpy(vectors, 0.7))


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["-o", "o.csv"], "E-CONFIG", ("p.h5", "facemill evaluate", "--threshold")),
        (["-o", "o.csv", "--expected-false", "3"], "E-CONFIG", ("--calibrate", 3)),
        (["-o", "o.txt", "--threshold", "0.5"], "E-CONFIG", ("o.txt", ".csv", ".parquet")),
        (["-o", "o.csv", "--threshold", "0.5", "--html", "o.txt"], "E-CONFIG", ("o.txt", ".html")),
        (["-o", "o.csv", "--threshold", "0.1", "--max-pairs", "9"], "E-TOO-MANY-PAIRS", (9, "--max-pairs")),
        (["-o", "o.csv", "--threshold", "0.5", "--expected-false", "3"], USAGE, ("--threshold", "--expected-false")),
        (["-o", "o.csv", "--threshold", "nan"], USAGE, ("--threshold", "nan")),
        (["-o", "o.csv", "--expected-false", "0"], USAGE, ("--expected-false", 0)),
        (["-o", "o.csv", "--threshold", "50"], USAGE, ("--threshold", 50, -1, 1)),
        (["-o", "o.csv", "--threshold", "0.5", "--budget", "soon"], USAGE, ("--budget", "soon")),
        (["-o", "o.csv", "--threshold", "0.5", "--device", "tpu"], USAGE, ("--device", "tpu", "auto")),
        (["--threshold", "0.5"], USAGE, ("--output",)),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, arguments: list[str], code: str, values: Values) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(100))
    given = [str(tmp_path / a) if a.startswith("o.") else a for a in arguments]
    done = pairs(path, *given)
    assert_refused(done, code, *values)
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600)]
)
def test_durations(text: str, seconds: float) -> None:
    from runtime.cli.options import duration

    (option,) = [one for one in main.params if one.name == "budget_s"]
    assert duration(main.make_context("pairs", ["f", "-o", "o.csv"]), option, text) == seconds


def test_existing_output_stays_without_force(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(100))
    (tmp_path / "o.csv").write_text("old")
    assert pairs(path, "--threshold", 0.5, "-o", tmp_path / "o.csv").returncode == 1
    assert (tmp_path / "o.csv").read_text() == "old"
    assert pairs(path, "--threshold", 0.5, "-o", tmp_path / "o.csv", "--force").returncode == 0
    assert len(read_csv(tmp_path / "o.csv")) == len(pairs_by_numpy(rows_with_duplicates(100), 0.5))


def test_no_such_file_leaves_no_folder(tmp_path: Path) -> None:
    done = pairs(tmp_path / "no.h5", "--threshold", 0.5, "-o", tmp_path / "o.csv")
    assert_refused(done, "E-STORAGE", tmp_path / "no.h5")
    assert list(tmp_path.iterdir()) == []


def test_people_who_are_there_twice_are_found(shared: Path, tmp_path: Path) -> None:
    """Photographs of LFW, of 30 people with two each and of 60 with one: pairs are nearly all of one name."""
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        shots: dict[str, list[str]] = {}
        for name in archive.getnames():
            if name.endswith(".jpg"):
                shots.setdefault(name.split("/")[1], []).append(name)
        twice = [names[:2] for names in shots.values() if len(names) >= 2][:30]
        once = [names[:1] for names in shots.values() if len(names) == 1][:60]
        for names in twice + once:
            for name in names:
                archive.extract(name, tmp_path, filter="data")
    file = tmp_path / "people.h5"
    done = facemill("process", tmp_path / "lfw", "-o", file, "--backend", "cpu", FACEMILL_MODELS=shared / "models")
    assert done.returncode == 0, done.stderr
    done = facemill("pairs", file, "--threshold", 0.45, "-o", tmp_path / "o.csv")
    assert done.returncode == 0, done.stderr
    lines = read_csv(tmp_path / "o.csv")
    same = [os.path.dirname(line["path_a"]) == os.path.dirname(line["path_b"]) for line in lines]
    assert sum(same) >= 24  # of 30
    assert len(same) - sum(same) <= 2
    assert all(same[:15])
