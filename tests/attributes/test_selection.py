"""Filters by age and gender, against NumPy; ranges of ages; and files without attributes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.attributes.selection import AttributeFilter, parse_ages
from runtime.errors import ConfigError
from runtime.storage.file import EmbeddingFile
from tests.support.attribute_files import add_columns, drawn_attributes
from tests.support.errors import raises
from tests.support.people_files import embed_folder, make_people


@pytest.fixture(scope="module")
def plain(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selection")
    make_people(folder / "photos", range(12))
    return embed_folder(folder / "photos", folder / "plain.h5", tiny_engine)


@pytest.fixture(scope="module")
def file(plain: Path) -> Path:
    path = Path(shutil.copy(plain, plain.with_name("people.h5")))
    add_columns(path, drawn_attributes(48))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("gender", [None, "man", "woman"])
@pytest.mark.parametrize("ages", [None, (0, 12), (18, 40), (65, 150), (30, 30)])
@pytest.mark.parametrize("unsure", ["keep", "drop"])
def test_rows_are_those_that_numpy_selects(
    file: Path, gender: str | None, ages: tuple[int, int] | None, unsure: str
) -> None:
    known = drawn_attributes(48)
    expected = np.ones(48, bool)
    for row, each in enumerate(known):
        if gender is not None:
            expected[row] &= each["gender"].decode() == gender
            expected[row] &= unsure == "keep" or bool(each["gender_score"] >= 0.9)
        if ages is not None:
            expected[row] &= bool(ages[0] <= each["age"] < ages[1] + 1)
            expected[row] &= unsure == "keep" or bool(ages[0] <= each["age_low"] and each["age_high"] < ages[1] + 1)
    with EmbeddingFile(file) as gallery:
        chosen = AttributeFilter(gender, ages, unsure)
        selected = chosen.rows(gallery)
    np.testing.assert_array_equal(selected, expected)
    assert bool(chosen) == (gender is not None or ages is not None)
    if unsure == "keep" and ages == (18, 40):
        assert 0 < selected.sum() < 48


def test_the_columns_are_read_back(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        stored = gallery.attributes
        assert stored is not None
        assert gallery.contract.attributes_read == ("age", "gender")
    known = drawn_attributes(48)
    for name in known.dtype.names or ():
        np.testing.assert_array_equal(stored[name], known[name])


def test_a_file_without_attributes_is_refused_with_the_next_command(plain: Path) -> None:
    with EmbeddingFile(plain) as gallery:
        assert gallery.attributes is None
        assert AttributeFilter().rows(gallery).all()
        with raises(ConfigError, "facemill attributes", plain):
            AttributeFilter("woman").rows(gallery)


@pytest.mark.parametrize(
    ("text", "ages"), [("18-40", (18, 40)), ("65-", (65, 150)), ("-12", (0, 12)), ("30", (30, 30)), (" 0-3 ", (0, 3))]
)
def test_ranges_of_ages(text: str, ages: tuple[int, int]) -> None:
    assert parse_ages(text) == ages
    assert AttributeFilter.of(None, text, "keep") == AttributeFilter(None, ages)


@pytest.mark.parametrize("text", ["", "-", "40-18", "adult", "1-2-3", "200", "1.5"])
def test_other_texts_are_no_ranges(text: str) -> None:
    with raises(ConfigError, "18-40"):
        AttributeFilter.of(None, text, "keep")


@pytest.mark.parametrize("values", [("child", None, "keep"), ("man", (5, 1), "keep"), (None, (1, 5), "maybe")])
def test_impossible_filters_are_refused(values: tuple[str | None, tuple[int, int] | None, str]) -> None:
    with pytest.raises(ConfigError):
        AttributeFilter(*values)
