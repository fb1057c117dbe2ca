"""Thresholds and rates of a comparison, compared with counting."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.metrics.falsematch import Calibration
from runtime.metrics.verification import match_rate, threshold_at, verdict


def calibration(scores: np.ndarray, first: int = -1000) -> Calibration:
    """Count a calibration from pairs of two people."""
    counts = [int((scores >= edge / 1000 - 1e-12).sum()) for edge in range(first, 1002)]
    stop = counts.index(0) + 1
    return Calibration({}, "lfw", 10, 5, len(scores), first, tuple(counts[:stop]), "now", "0")


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """(20000,) float64, rounded to 0.001."""
    return np.round(np.random.default_rng(3).normal(0.02, 0.1, 20_000), 3)


@pytest.mark.parametrize("score", [-1.0, -0.2, 0.0, 0.1, 0.25, 0.3])
def test_the_rate_is_the_share_of_pairs_at_the_score_or_above(scores: np.ndarray, score: float) -> None:
    rate = match_rate(calibration(scores), score)
    assert rate.hits == pytest.approx((scores >= score - 1e-12).mean())
    assert not rate.at_most


def test_above_all_pairs_the_rate_is_a_bound(scores: np.ndarray) -> None:
    rate = match_rate(calibration(scores), float(scores.max()) + 0.002)
    assert rate.at_most
    assert rate.hits == pytest.approx(3 / len(scores))
    assert str(rate).startswith("<0.00015")


@pytest.mark.parametrize("rate", [1.0, 0.1, 1e-3, 1e-4])
def test_the_threshold_is_the_lowest_within_the_rate(scores: np.ndarray, rate: float) -> None:
    threshold = threshold_at(calibration(scores), rate)
    assert threshold is not None
    assert (scores >= threshold - 1e-12).mean() <= rate
    if threshold > -1:
        assert (scores >= threshold - 0.001 - 1e-12).mean() > rate


def test_too_few_pairs_give_no_rate(scores: np.ndarray) -> None:
    assert threshold_at(calibration(scores[:999]), 1e-3) is None
    assert threshold_at(calibration(scores[:1000]), 1e-3) is not None
    assert threshold_at(calibration(scores[:3000]), 1e-3) is not None


@pytest.mark.parametrize(
    ("score", "threshold", "expected"), [(0.4, 0.4, "same"), (0.39, 0.4, "different"), (1.0, None, "unknown")]
)
def test_a_verdict_needs_a_threshold(score: float, threshold: float | None, expected: str) -> None:
    assert verdict(score, threshold) == expected
