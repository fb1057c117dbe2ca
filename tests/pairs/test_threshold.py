"""Choose a threshold from the expected number of false pairs, by counting."""

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


def choose(path: Path, expected: float | None, impostors: np.ndarray = IMPOSTORS) -> float:
    with EmbeddingFile(path) as gallery:
        return choose_threshold(gallery, calibration_of(impostors), None, expected)


def false_pairs(threshold: float) -> float:
    """Expected pairs of different people: the false-match rate of the impostors times all pairs of the file."""
    return float((IMPOSTORS.astype(np.float32) >= np.floor(threshold * 1000 + 1e-6) / 1000).mean() * PAIRS)


@pytest.mark.parametrize("expected", [0.5, 1, 10, 123, 5000])
def test_the_threshold_is_the_lowest_with_the_expected_false_pairs(path: Path, expected: float) -> None:
    threshold = choose(path, expected)
    assert false_pairs(threshold) <= expected
    assert false_pairs(threshold - 0.002) > expected


def test_all_pairs_may_be_expected_false(path: Path) -> None:
    assert choose(path, PAIRS) <= IMPOSTORS.min()


def test_a_given_threshold_is_used(path: Path) -> None:
    with EmbeddingFile(path) as gallery:
        assert choose_threshold(gallery, None, 0.25, None) == 0.25
        assert choose_threshold(gallery, calibration_of(IMPOSTORS), 0.25, None) == 0.25


def test_the_default_expects_one_false_pair(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "runtime"):
        assert choose(path, None) == choose(path, 1)
    assert_names(caplog.text, f"{choose(path, 1):.3f}")


def test_with_few_impostor_pairs_the_default_is_above_all_of_them(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few_impostors = IMPOSTORS[:100]
    with caplog.at_level(logging.WARNING, "runtime"):
        threshold = choose(path, None, few_impostors)
    assert few_impostors.max() < threshold <= few_impostors.max() + 0.0011
    assert_names(caplog.text, 1, "19,900", "<597")


@pytest.mark.parametrize("expected", [1, 500])
def test_an_expectation_below_the_resolution_of_the_calibration_is_refused(path: Path, expected: float) -> None:
    with raises(ConfigError, expected, "--threshold"):
        choose(path, expected, np.repeat(0.3, 100))


def test_impostors_with_the_highest_score_allow_no_threshold(path: Path) -> None:
    with raises(ConfigError):
        choose(path, None, np.ones(100))


@pytest.mark.parametrize(("expected", "values"), [(None, ()), (7.0, (7,))])
def test_without_a_calibration_the_error_names_both_ways(path: Path, expected: float | None, values: Values) -> None:
    ways = (f"facemill evaluate FOLDER --calibrate {path}", "--threshold")
    with EmbeddingFile(path) as gallery, raises(ConfigError, path, *ways, *values):
        choose_threshold(gallery, None, None, expected)
