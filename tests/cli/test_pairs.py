"""The pairs command: its output, its files, its refusals."""

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
    """Embed photos, two of them copies with hostile names."""
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


@pytest.mark.slow
def test_copies_of_a_photo_are_found_under_any_name(people: Path, tmp_path: Path) -> None:
    result = pairs(people, "--threshold", 0.99999, "-o", tmp_path / "o.csv", "--html", tmp_path / "r.html")
    assert result.returncode == 0, result.stderr
    table = read_csv(tmp_path / "o.csv")
    assert {frozenset((line["path_a"], line["path_b"])) for line in table} == {
        frozenset((EVIL, "p3.jpg")),
        frozenset(("p5.jpg", "raw\\xff.jpg")),
    }
    assert all(float(line["score"]) > 0.99999 for line in table)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'o.csv'}: 2 pairs at 0.99999 or above"
    assert lines[1] == "search: exact: every row was compared with every other"
    assert lines[2].startswith("time: ")
    assert " 45 comparisons" in lines[2]
    assert lines[3] == f"page: {tmp_path / 'r.html'}"
    assert lines[4].startswith("model: tiny (sha256 ")
    assert f"WARNING: {UNTRAINED_WARNING}" in result.stderr
    text = (tmp_path / "r.html").read_text()
    assert "model tiny (sha256 " in text
    assert "Warning: random weights" in text
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<img src=x" not in text
    assert sorted(path.name for path in people.parent.iterdir()) == ["in", "people.h5", "people.h5.pages"]


@pytest.mark.slow
def test_a_calibration_sets_the_threshold_and_the_expected_false_pairs(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    calibration = calibration_of(np.random.default_rng(0).normal(0, 0.1, 100_000).clip(-1, 1))
    path = write_rows(tmp_path / "p.h5", vectors, calibration=calibration)
    result = pairs(path, "--expected-false", 100, "-o", tmp_path / "o.csv")
    assert result.returncode == 0, result.stderr
    threshold = float(result.stdout.split(" pairs at ")[1].split()[0])
    assert calibration.expected(threshold, 300 * 299 // 2).hits <= 100
    assert "expected false pairs at the threshold: " in result.stdout
    lines = read_csv(tmp_path / "o.csv")
    assert len(lines) == len(pairs_by_numpy(vectors, threshold))
    assert max(float(line["expected_false"]) for line in lines) <= 100
    default = pairs(path, "-o", tmp_path / "usual.csv")
    assert default.returncode == 0
    assert threshold < float(default.stdout.split(" pairs at ")[1].split()[0])


@pytest.mark.slow
def test_a_budget_marks_the_result_as_approximate(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(1000)
    path = write_rows(tmp_path / "p.h5", vectors)
    result = facemill("pairs", path, "--threshold", 0.7, "-o", tmp_path / "o.csv", "--budget", "0.000001s")
    assert result.returncode == 0, result.stderr
    assert "search: APPROXIMATE" in result.stdout
    assert "approximate" in result.stderr
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
def test_a_refused_command_writes_no_file(tmp_path: Path, arguments: list[str], code: str, values: Values) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(100))
    absolute = [str(tmp_path / argument) if argument.startswith("o.") else argument for argument in arguments]
    result = pairs(path, *absolute)
    assert_refused(result, code, *values)
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600)]
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    from runtime.cli.options import duration

    (option,) = [parameter for parameter in main.params if parameter.name == "budget_s"]
    assert duration(main.make_context("pairs", ["f", "-o", "o.csv"]), option, text) == seconds


def test_existing_output_stays_without_force(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(100))
    (tmp_path / "o.csv").write_text("old")
    assert pairs(path, "--threshold", 0.5, "-o", tmp_path / "o.csv").returncode == 1
    assert (tmp_path / "o.csv").read_text() == "old"
    assert pairs(path, "--threshold", 0.5, "-o", tmp_path / "o.csv", "--force").returncode == 0
    assert len(read_csv(tmp_path / "o.csv")) == len(pairs_by_numpy(rows_with_duplicates(100), 0.5))


def test_a_missing_file_is_refused_and_no_folder_remains(tmp_path: Path) -> None:
    result = pairs(tmp_path / "no.h5", "--threshold", 0.5, "-o", tmp_path / "o.csv")
    assert_refused(result, "E-STORAGE", tmp_path / "no.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_people_with_two_photos_are_found(shared: Path, tmp_path: Path) -> None:
    """Embed 30 people of LFW with two photos each and 60 with one: nearly all pairs show one person."""
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
    result = facemill("process", tmp_path / "lfw", "-o", file, "--backend", "cpu", FACEMILL_MODELS=shared / "models")
    assert result.returncode == 0, result.stderr
    # Of LFW's pairs of two people, 0.01 % score as high (models/facemill-512.md).
    result = facemill("pairs", file, "--threshold", 0.47, "-o", tmp_path / "o.csv")
    assert result.returncode == 0, result.stderr
    lines = read_csv(tmp_path / "o.csv")
    same = [os.path.dirname(line["path_a"]) == os.path.dirname(line["path_b"]) for line in lines]
    assert sum(same) >= 24  # of 30 pairs
    assert len(same) - sum(same) <= 2
    assert all(same[:15])
