"""Error rates compared with counting, with ties, missing pairs and too few pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError
from runtime.metrics.curve import BINS, STEPS, Curve, count_scores, curve_of_counts, curve_of_scores
from tests.support.errors import raises

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.8, 0.5, 0.5, 0.1, -0.2, 0.2], np.float32)
SAME = np.array([True, True, True, True] + [False] * 6)


def draw_scores(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    same = rng.random(400) < 0.4
    hundredths = np.round(100 * (np.where(same, 0.4, 0.1) + rng.normal(0, 0.2, 400)))
    return (hundredths / 128).astype(np.float32), same  # many are tied


def test_rates_computed_by_hand() -> None:
    curve = curve_of_scores(SCORES, SAME)
    assert (curve.genuine, curve.impostors) == (4, 6)
    point = curve.at_far(0.17)  # one of six; the highest, at 0.8, is tied with two genuine pairs
    assert point is not None
    assert (point.false_accepts, point.accepted, point.tar) == (1, 3, 0.75)
    assert point.threshold == np.float32(0.8)
    point = curve.at_far(0.34)  # two of six would be allowed, but the second and the third are tied
    assert point is not None
    assert (point.false_accepts, point.accepted) == (1, 3)
    point = curve.at_far(0.5)
    assert point is not None
    assert (point.false_accepts, point.accepted, point.threshold) == (3, 4, np.float32(0.3))
    everything = curve.at_far(1.0)
    assert everything is not None
    assert (everything.false_accepts, everything.accepted) == (6, 4)
    assert (curve.above_all().accepted, curve.above_all().threshold) == (1, np.float32(0.9))
    above = curve_of_scores(SCORES, ~SAME).above_all()  # the highest score belongs to an impostor
    assert (above.accepted, above.false_accepts) == (0, 0)
    assert above.threshold > float(np.float32(0.9))


def test_a_rate_that_needs_more_pairs_is_none() -> None:
    curve = curve_of_scores(SCORES, SAME)
    assert curve.at_far(0.16) is None  # not one of six
    assert curve.at_far(1 / 6) is not None
    three_thousand = Curve(np.array([0.0, 1.0]), np.array([5, 0]), np.array([3000, 3]), 5, 3000)
    point = three_thousand.at_far(1e-3)  # 1e-3 * 3000 is a little below 3 or above it in floating point, and means 3
    assert point is not None
    assert point.false_accepts == 3


@pytest.mark.parametrize("seed", range(4))
def test_rates_equal_those_of_trying_every_threshold(seed: int) -> None:
    scores, same = draw_scores(seed)
    exact = curve_of_scores(scores, same)
    grid = curve_of_counts(count_scores(scores[same]), count_scores(scores[~same]))
    for far in (0.01, 0.05, 0.1, 0.3, 1.0):
        allowed = [t for t in [*np.unique(scores), 2.0] if (scores[~same] >= t).sum() <= far * (~same).sum()]
        lowest = min(allowed)
        for curve in (exact, grid):
            point = curve.at_far(far)
            assert point is not None
            assert point.false_accepts == (scores[~same] >= lowest).sum()
            assert point.accepted == (scores[same] >= lowest).sum()
            # NumPy would round a Python float to the array's float32 before it compares.
            reaching = scores.astype(np.float64) >= point.threshold
            assert reaching[~same].sum() == point.false_accepts
            assert reaching[same].sum() == point.accepted


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_the_share_of_genuine_scores_above_impostors(seed: int) -> None:
    scores, same = draw_scores(seed)
    above = scores[same][:, None] > scores[~same]
    tied = scores[same][:, None] == scores[~same]
    assert curve_of_scores(scores, same).area == pytest.approx((above + tied / 2).mean())


def test_missing_pairs_are_never_accepted_and_do_not_lower_rates() -> None:
    gone = np.array([np.nan, np.nan, np.nan], np.float32)
    curve = curve_of_scores(np.concatenate([SCORES, gone]), np.concatenate([SAME, [True, False, False]]))
    assert (curve.genuine, curve.impostors) == (5, 6)
    point = curve.at_far(1.0)
    assert point is not None
    assert point.tar == 4 / 5
    counted = curve_of_counts(count_scores(SCORES[SAME]), count_scores(SCORES[~SAME]), unscored=1)
    point = counted.at_far(1.0)
    assert point is not None
    assert point.tar == 4 / 5
    with raises(ConfigError):
        curve_of_scores(gone, np.array([True, False, False]))


def test_no_genuine_pair_has_no_rate() -> None:
    curve = curve_of_scores(SCORES, np.zeros(10, np.bool_))
    point = curve.at_far(0.5)
    assert point is not None
    assert point.tar is None


def test_scores_on_the_grid_are_counted_exactly() -> None:
    """Test the float32 nearest to every threshold of the grid and its neighbours, compared in float64."""
    thresholds = np.arange(-STEPS, STEPS + 1) / STEPS
    near = thresholds.astype(np.float32)
    scores = np.concatenate([near, np.nextafter(near, np.float32(-2)), np.nextafter(near, np.float32(2))])
    at_least = curve_of_counts(count_scores(scores), np.zeros(BINS, np.int64)).accepted
    inside = np.clip(scores, -1, 1).astype(np.float64)
    expected = len(scores) - np.searchsorted(np.sort(inside), thresholds)
    np.testing.assert_array_equal(at_least[:-1], expected)
    assert at_least[-1] == 0


def test_the_roc_starts_at_the_first_false_accept_and_ends_at_all() -> None:
    scores, same = draw_scores(2)
    roc = curve_of_scores(scores, same).roc(50)
    assert roc["far"] == sorted(roc["far"])
    assert roc["tar"] == sorted(roc["tar"])
    assert roc["threshold"] == sorted(roc["threshold"], reverse=True)
    assert (roc["far"][-1], roc["tar"][-1]) == (1, 1)
    for far, tar, threshold in zip(roc["far"], roc["tar"], roc["threshold"], strict=True):
        assert far == pytest.approx((scores[~same] >= threshold).mean())
        assert tar == pytest.approx((scores[same] >= threshold).mean())
    assert curve_of_scores(scores[same], same[same]).roc() == {"far": [], "tar": [], "threshold": []}
