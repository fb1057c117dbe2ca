"""Expected false hits compared with counting, and no claims about the tail."""

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


def count_at_least(threshold: float) -> int:
    """Count impostor scores at or above a threshold, compared in float64."""
    return int(np.sum(threshold <= IMPOSTORS.astype(np.float64)))


@pytest.fixture
def curve() -> Curve:
    return curve_of_counts(count_scores(GENUINE), count_scores(IMPOSTORS))


@pytest.fixture
def calibration(curve: Curve) -> Calibration:
    return calibrate(curve, **ORIGIN)


def test_expected_false_hits_are_counted_at_the_score_rounded_down(calibration: Calibration) -> None:
    for score in np.linspace(-1, float(IMPOSTORS.max()) - 0.001, 300):
        expectation = calibration.expected(float(score), 1000)
        assert expectation == Expectation(1000 * count_at_least(np.floor(score * 1000) / 1000) / 20_000, at_most=False)
        assert expectation.hits * 20 >= count_at_least(float(score)) - 1e-6


def test_above_all_impostors_the_expectation_is_a_bound(calibration: Calibration) -> None:
    for score in (float(IMPOSTORS.max()) + 0.001, 0.99, 1.0, 1.0000001):
        assert calibration.expected(score, 1000) == Expectation(1000 * 3 / 20_000, at_most=True)
    assert not calibration.expected(float(IMPOSTORS.max()), 1000).at_most


def test_a_calibration_is_small_and_survives_a_round_trip(calibration: Calibration) -> None:
    text = calibration.to_json()
    assert "\n" not in text
    assert len(text) < 30_000
    assert calibration_from_json(text) == calibration
    assert calibration.at_least[-1] == 0
    assert calibration.at_least[0] == calibration.pairs == 20_000


@pytest.mark.parametrize("score", [-1.0, 1.0])
def test_scores_at_the_limits(score: float) -> None:
    curve = curve_of_counts(np.zeros(BINS, np.int64), count_scores(np.full(5, score, np.float32)))
    calibration = calibrate(curve, **ORIGIN)
    assert calibration.expected(score, 10) == Expectation(10, at_most=False)
    assert calibration.expected(-1, 10) == Expectation(10, at_most=False)
    assert calibration.expected(1, 10).at_most == (score < 1)


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


def test_an_incomplete_calibration_is_refused(calibration: Calibration) -> None:
    raw = json.loads(calibration.to_json())
    for key in raw:
        with raises(ConfigError, f"KeyError: '{key}'"):
            calibration_from_json(json.dumps({name: raw[name] for name in raw if name != key}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}"])
def test_text_that_is_no_calibration_is_refused(text: str) -> None:
    with raises(ConfigError, "facemill evaluate FOLDER --calibrate"):
        calibration_from_json(text)


def test_thresholds_meet_their_expectation(curve: Curve) -> None:
    thresholds = thresholds_for(curve, 100)
    assert [expected.expected for expected in thresholds] == [0.01, 0.1, 1.0]
    for expected in thresholds:
        assert expected.point is not None
        threshold = expected.point.threshold
        assert count_at_least(threshold) <= 200 * expected.expected < count_at_least(threshold - 1e-4)
        assert expected.point.tar == np.mean(threshold <= GENUINE.astype(np.float64))


def test_too_few_pairs_give_no_threshold(curve: Curve) -> None:
    assert [expected.point is None for expected in thresholds_for(curve, 20_000)] == [True, True, False]
    assert [expected.point is None for expected in thresholds_for(curve, 20_001)] == [True, True, True]
    (point,) = {expected.point for expected in thresholds_for(curve, 1) if expected.expected == 1}
    assert point is not None
    assert point.false_accepts == 20_000


def test_a_calibration_needs_two_people() -> None:
    empty = np.zeros(BINS, np.int64)
    with raises(ConfigError, "/outcomes"):
        calibrate(curve_of_counts(count_scores(GENUINE), empty), **ORIGIN)


@pytest.mark.parametrize(
    ("hits", "at_most", "text"),
    [(0.00123, False, "0.0012"), (0.3, True, "<0.3"), (12.3, False, "12"), (1234567.0, False, "1,234,567")],
)
def test_expectations_as_text(hits: float, at_most: bool, text: str) -> None:
    assert str(Expectation(hits, at_most)) == text


@pytest.mark.parametrize("hits", [0.5, 1, 20, 900])
def test_the_lowest_score_meets_its_expectation(calibration: Calibration, hits: float) -> None:
    score = calibration.lowest(hits, 1000)
    assert score is not None
    assert calibration.expected(score, 1000).hits <= hits < calibration.expected(score - 0.0015, 1000).hits


def test_too_few_pairs_give_no_lowest_score(calibration: Calibration) -> None:
    assert calibration.lowest(1, 1_000_000) is None
    assert calibration.expected(calibration.beyond, 1).at_most
    assert not calibration.expected(calibration.beyond - 0.0015, 1).at_most
    assert float(IMPOSTORS.max()) < calibration.beyond <= float(IMPOSTORS.max()) + 0.001
