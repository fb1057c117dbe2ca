"""Expected false hits against counting, and the tail that is not claimed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime.errors import ConfigError
from runtime.metrics.curve import BINS, Curve, count_scores, curve_of_counts
from runtime.metrics.falsematch import (
    Calibration,
    Expectation,
    calibrate,
    calibration_from_json,
    thresholds_for,
)
from tests.support.errors import Values, raises

RNG = np.random.default_rng(5)
GENUINE = np.clip(RNG.normal(0.6, 0.1, 500), -1, 1).astype(np.float32)
IMPOSTORS = np.clip(RNG.normal(0, 0.15, 20_000), -1, 1).astype(np.float32)
ORIGIN = {
    "contract": {"model_sha256": "f" * 64, "crop": "112x112"},
    "folder": "people",
    "photographs": 300,
    "people": 40,
    "made_utc": "2030-01-02T03:04:05+00:00",
    "tool_version": "1",
}


def reaching(threshold: float) -> int:
    """Impostor scores of at least so much, compared in float64."""
    return int(np.sum(threshold <= IMPOSTORS.astype(np.float64)))


@pytest.fixture
def curve() -> Curve:
    return curve_of_counts(count_scores(GENUINE), count_scores(IMPOSTORS))


@pytest.fixture
def calibration(curve: Curve) -> Calibration:
    return calibrate(curve, **ORIGIN)


def test_expected_false_hits_are_counted_at_the_thousandth_below(calibration: Calibration) -> None:
    for score in np.linspace(-1, float(IMPOSTORS.max()) - 0.001, 300):
        found = calibration.expected(float(score), 1000)
        assert found == Expectation(1000 * reaching(np.floor(score * 1000) / 1000) / 20_000, at_most=False)
        assert found.hits * 20 >= reaching(float(score)) - 1e-6


def test_above_all_impostors_there_is_only_a_bound(calibration: Calibration) -> None:
    for score in (float(IMPOSTORS.max()) + 0.001, 0.99, 1.0, 1.0000001):
        assert calibration.expected(score, 1000) == Expectation(1000 * 3 / 20_000, at_most=True)
    assert not calibration.expected(float(IMPOSTORS.max()), 1000).at_most


def test_a_calibration_is_small_and_survives_being_written(calibration: Calibration) -> None:
    text = calibration.to_json()
    assert "\n" not in text
    assert len(text) < 30_000
    assert calibration_from_json(text) == calibration
    assert calibration.at_least[-1] == 0
    assert calibration.at_least[0] == calibration.pairs == 20_000


@pytest.mark.parametrize("score", [-1.0, 1.0])
def test_scores_at_the_ends(score: float) -> None:
    curve = curve_of_counts(np.zeros(BINS, np.int64), count_scores(np.full(5, score, np.float32)))
    found = calibrate(curve, **ORIGIN)
    assert found.expected(score, 10) == Expectation(10, at_most=False)
    assert found.expected(-1, 10) == Expectation(10, at_most=False)
    assert found.expected(1, 10).at_most == (score < 1)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"format": 2}, (2, 1)),
        ({"pairs": 0}, ()),
        ({"at_least": []}, ()),
        ({"at_least": [5, 1]}, ()),
        ({"at_least": ["x"]}, ("ValueError",)),
    ],
)
def test_a_damaged_calibration_is_refused(calibration: Calibration, change: dict[str, object], values: Values) -> None:
    raw = {**json.loads(calibration.to_json()), **change}
    with raises(ConfigError, *values, "facemill evaluate"):
        calibration_from_json(json.dumps(raw))


def test_a_calibration_that_lacks_something_is_refused(calibration: Calibration) -> None:
    raw = json.loads(calibration.to_json())
    for key in raw:
        with raises(ConfigError, f"KeyError: '{key}'"):
            calibration_from_json(json.dumps({other: raw[other] for other in raw if other != key}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}"])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with raises(ConfigError, "facemill evaluate FOLDER --calibrate"):
        calibration_from_json(text)


def test_thresholds_keep_to_what_is_expected(curve: Curve) -> None:
    found = thresholds_for(curve, 100)
    assert [wanted.expected for wanted in found] == [0.01, 0.1, 1.0]
    for wanted in found:
        assert wanted.point is not None
        threshold = wanted.point.threshold
        assert reaching(threshold) <= 200 * wanted.expected < reaching(threshold - 1e-4)
        assert wanted.point.tar == np.mean(threshold <= GENUINE.astype(np.float64))


def test_what_the_pairs_cannot_show_has_no_threshold(curve: Curve) -> None:
    assert [wanted.point is None for wanted in thresholds_for(curve, 20_000)] == [True, True, False]
    assert [wanted.point is None for wanted in thresholds_for(curve, 20_001)] == [True, True, True]
    (whole,) = {wanted.point for wanted in thresholds_for(curve, 1) if wanted.expected == 1}
    assert whole is not None
    assert whole.false_accepts == 20_000


def test_no_two_people_cannot_calibrate() -> None:
    empty = np.zeros(BINS, np.int64)
    with raises(ConfigError, "/outcomes"):
        calibrate(curve_of_counts(count_scores(GENUINE), empty), **ORIGIN)


@pytest.mark.parametrize(
    ("hits", "at_most", "words"),
    [(0.00123, False, "0.0012"), (0.3, True, "<0.3"), (12.3, False, "12"), (1234567.0, False, "1,234,567")],
)
def test_expectations_read_well(hits: float, at_most: bool, words: str) -> None:
    assert str(Expectation(hits, at_most)) == words


@pytest.mark.parametrize("hits", [0.5, 1, 20, 900])
def test_the_lowest_score_keeps_to_what_is_expected(calibration: Calibration, hits: float) -> None:
    score = calibration.lowest(hits, 1000)
    assert score is not None
    assert calibration.expected(score, 1000).hits <= hits < calibration.expected(score - 0.0015, 1000).hits


def test_what_the_pairs_cannot_show_has_no_lowest_score(calibration: Calibration) -> None:
    assert calibration.lowest(1, 1_000_000) is None
    assert calibration.expected(calibration.beyond, 1).at_most
    assert not calibration.expected(calibration.beyond - 0.0015, 1).at_most
    assert float(IMPOSTORS.max()) < calibration.beyond <= float(IMPOSTORS.max()) + 0.001
