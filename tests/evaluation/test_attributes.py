"""The errors of ages and genders against NumPy, and labels that cannot be used."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.errors import ConfigError
from runtime.evaluation.attributes import KnownPerson, measure_attributes, read_known
from tests.support.attribute_files import add_columns, drawn_attributes, write_attribute_model
from tests.support.errors import raises
from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_people


@pytest.fixture(scope="module")
def file(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attributes")
    make_people(folder / "photos", range(12))
    path = embed_folder(folder / "photos", folder / "people.h5", tiny_engine)
    add_columns(path, drawn_attributes(48))
    return path


@pytest.mark.slow
def test_errors_are_those_that_numpy_computes(file: Path) -> None:
    read = drawn_attributes(48)
    rng = np.random.default_rng(5)
    ages, women = rng.integers(0, 90, 48), rng.integers(0, 2, 48).astype(bool)
    with runtime.open(file) as gallery:
        names = gallery.photo_names(range(48))
        known = {
            name: KnownPerson(float(age), "woman" if woman else "man", "left" if row < 24 else "right")
            for row, (name, age, woman) in enumerate(zip(names, ages, women, strict=True))
        }
        report = measure_attributes(gallery, {**known, b"gone.jpg": KnownPerson(3.0)}, "photos", "labels.csv")
    assert (report.labelled, report.unread) == (49, 1)
    by_name = {errors.who: errors for errors in report.errors}
    has = ~np.isnan(read["age"])
    for who, part in {
        "all": np.ones(48, bool),
        "adults (18 and older)": ages >= 18,
        "below 13": ages < 13,
        "30 to 44": (ages >= 30) & (ages < 45),
        "women": women,
        "left": np.arange(48) < 24,
    }.items():
        chosen = part & has
        difference = read["age"][chosen] - ages[chosen]
        errors = by_name[who]
        assert errors.ages == errors.genders == chosen.sum()
        assert errors.error == pytest.approx(np.abs(difference).mean(), rel=1e-5)
        assert errors.bias == pytest.approx(difference.mean(), rel=1e-4)
        right = (read["gender"][chosen] == b"woman") == women[chosen]
        assert errors.right == pytest.approx(right.mean())
        inside = (read["age_low"][chosen] <= ages[chosen]) & (ages[chosen] <= read["age_high"][chosen])
        assert errors.inside == pytest.approx(inside.mean())
    assert len(report.tables()[1].rows) == len(report.errors)


def test_labels_may_lack_fields_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,age,note\na.jpg,30,x\nb.jpg,,y\n")
    assert read_known(path) == {b"a.jpg": KnownPerson(30.0), b"b.jpg": KnownPerson()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "path"),
        ("path\na.jpg\n", "age"),
        ("path,age\na.jpg,old\n", "line 2"),
        ("path,age\na.jpg,old\n", "0 to 150"),
        ("path,age\na.jpg,nan\n", "nan"),
        ("path,age\na.jpg,200\n", "200"),
        ("path,gender\na.jpg,boy\n", "boy"),
        ("path,age\n", "lines"),
    ],
)
def test_other_labels_are_refused(tmp_path: Path, text: str, value: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with raises(ConfigError, path, value):
        read_known(path)
    with raises(ConfigError, tmp_path / "none.csv"):
        read_known(tmp_path / "none.csv")


def test_labels_of_other_photos_are_refused(file: Path) -> None:
    with runtime.open(file) as gallery, raises(ConfigError, "labels.csv"):
        measure_attributes(gallery, {b"x.jpg": KnownPerson(3.0)}, "photos", "labels.csv")


@pytest.mark.slow
def test_the_command_measures_a_folder(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_attribute_model(tmp_path)
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    make_people(tmp_path / "photos", range(2))
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        rows = [(f"P{person:02d}/{photo}.jpg", 40, "man") for person in range(2) for photo in range(4)]
        csv.writer(stream).writerows([("path", "age", "gender"), *rows])
    arguments = ("evaluate", tmp_path / "photos", "--attributes", tmp_path / "labels.csv", "--engine", tiny_engine)
    result = facemill(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["labelled"], report["unread"]) == (8, 0)
    assert report["errors"][0]["ages"] == 8
    assert "adults" in facemill(*arguments).stdout
    with (tmp_path / "labels.csv").open("a") as stream:
        stream.write("gone.jpg,40,man\n")
    assert json.loads(facemill(*arguments, "--json").stdout)["unread_paths"] == ["gone.jpg"]
    assert "1: gone.jpg" in facemill(*arguments).stdout
    assert facemill(*arguments, "--gallery", "10").returncode == 2
