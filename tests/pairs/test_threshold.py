"""From expected false pairs to a threshold, by counting."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import ConfigError
from runtime.pairs.threshold import choose_threshold
from runtime.storage.file import EmbeddingFile
from tests.support.duplicate_people import calibration_of, rows_with_duplicates, write_rows
from tests.support.errors import Values, assert_names, raises

ROWS = 200
PAIRS = ROWS * (ROWS - 1) // 2
IMPOSTORS = np.random.default_rng(0).normal(0, 0.15, 50_000).clip(-1, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "p.h5", rows_with_duplicates(ROWS))


def chosen(path: Path, expected: float | None, impostors: np.ndarray = IMPOSTORS) -> float:
    with EmbeddingFile(path) as gallery:
        return choose_threshold(gallery, calibration_of(impostors), None, expected)


def false_pairs(threshold: float) -> float:
    """Pairs of two people to expect in the file: the rate counted on the impostors times all its pairs."""
    return float((IMPOSTORS.astype(np.float32) >= np.floor(threshold * 1000 + 1e-6) / 1000).mean() * PAIRS)


@pytest.mark.parametrize("expected", [0.5, 1, 10, 123, 5000])
def test_it_is_the_lowest_that_keeps_to_what_may_be_expected(path: Path, expected: float) -> None:
    found = chosen(path, expected)
    assert false_pairs(found) <= expected
    assert false_pairs(found - 0.002) > expected


def test_all_pairs_may_be_false(path: Path) -> None:
    assert chosen(path, PAIRS) <= IMPOSTORS.min()


def test_a_threshold_that_is_given_is_taken(path: Path) -> None:
    with EmbeddingFile(path) as gallery:
        assert choose_threshold(gallery, None, 0.25, None) == 0.25
        assert choose_threshold(gallery, calibration_of(IMPOSTORS), 0.25, None) == 0.25


def test_the_usual_one_expects_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "runtime"):
        assert chosen(path, None) == chosen(path, 1)
    assert_names(caplog.text, f"{chosen(path, 1):.3f}")


def test_of_too_few_pairs_the_usual_one_is_what_none_reached(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = IMPOSTORS[:100]
    with caplog.at_level(logging.WARNING, "runtime"):
        found = chosen(path, None, few)
    assert few.max() < found <= few.max() + 0.0011
    assert_names(caplog.text, 1, "19,900", "<597")


@pytest.mark.parametrize("expected", [1, 500])
def test_what_too_few_pairs_cannot_show_is_refused_if_asked_for(path: Path, expected: float) -> None:
    with raises(ConfigError, expected, "--threshold"):
        chosen(path, expected, np.repeat(0.3, 100))


def test_where_impostors_score_all_there_is_no_threshold(path: Path) -> None:
    with raises(ConfigError):
        chosen(path, None, np.ones(100))


@pytest.mark.parametrize(("expected", "values"), [(None, ()), (7.0, (7,))])
def test_without_a_calibration_both_ways_are_named(path: Path, expected: float | None, values: Values) -> None:
    ways = (f"facemill evaluate FOLDER --calibrate {path}", "--threshold")
    with EmbeddingFile(path) as gallery, raises(ConfigError, path, *ways, *values):
        choose_threshold(gallery, None, None, expected)
