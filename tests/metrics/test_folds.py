"""Ten-fold accuracy compared with a loop over every threshold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError
from runtime.metrics.folds import best_threshold, cross_validate
from tests.support.errors import raises


def draw_scores(
    seed: int, pairs: int = 120, folds: int = 4
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Draw overlapping scores with many ties and one in fifteen missing."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.5
    scores = np.round(np.where(same, 0.5, 0.2) + rng.normal(0, 0.2, pairs), 1).astype(np.float32)
    scores[rng.random(pairs) < 1 / 15] = np.nan
    return scores, same, np.arange(pairs) * folds // pairs


def is_correct(score: float, same: bool, threshold: float) -> bool:
    return not np.isnan(score) and (score >= threshold) == same


@pytest.mark.parametrize("seed", range(6))
def test_every_fold_is_judged_by_the_best_threshold_of_the_others(seed: int) -> None:
    scores, same, fold = draw_scores(seed)
    result = cross_validate(scores, same, fold)
    pairs = list(zip(scores.tolist(), same.tolist(), fold.tolist(), strict=True))
    values = sorted({score for score, _, _ in pairs if not np.isnan(score)})
    candidates = [values[0] - 1, *((a + b) / 2 for a, b in pairwise(values)), values[-1] + 1]
    right = []
    for number in range(4):
        counts = [sum(is_correct(s, y, t) for s, y, f in pairs if f != number) for t in candidates]
        chosen = float(result.thresholds[number])
        assert sum(is_correct(s, y, chosen) for s, y, f in pairs if f != number) == max(counts)
        verdicts = [is_correct(s, y, chosen) for s, y, f in pairs if f == number]
        assert result.accuracies[number] == pytest.approx(np.mean(verdicts))
        right += verdicts
    assert result.right.tolist() == right
    assert result.accuracy == pytest.approx(result.accuracies.mean())
    assert result.standard_error == pytest.approx(np.std(result.accuracies, ddof=1) / 2)


def test_the_middle_of_equally_good_thresholds_is_selected() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    same = np.array([False, True, False, True, True])  # 4 right from 0.15, from 0.35
    assert best_threshold(scores, same) == pytest.approx(0.35)
    same = np.array([False, True, False, True, False])  # 3 right from 0.15, 0.35 and 1.5
    assert best_threshold(scores, same) == pytest.approx(0.35)


@pytest.mark.parametrize(("same", "accepted"), [(True, True), (False, False)])
def test_pairs_of_one_kind_are_all_correct(same: bool, accepted: bool) -> None:
    scores = np.array([0.3, 0.7], np.float32)
    threshold = best_threshold(scores, np.array([same, same]))
    assert ((scores >= threshold) == accepted).all()


def test_a_missing_pair_counts_as_wrong() -> None:
    scores = np.array([0.9, 0.1, np.nan, np.nan] * 2, np.float32)
    same = np.array([True, False, True, False] * 2)
    result = cross_validate(scores, same, np.repeat([0, 1], 4))
    assert result.right.tolist() == [True, True, False, False] * 2
    assert result.accuracy == 0.5


def test_a_single_fold_uses_its_best_threshold() -> None:
    scores, same, _ = draw_scores(1)
    result = cross_validate(scores, same, np.zeros(len(scores), np.int64))
    present = ~np.isnan(scores)
    assert result.thresholds.tolist() == [best_threshold(scores[present], same[present])]
    assert result.deviation == 0


def test_a_fold_without_scores_is_an_error() -> None:
    scores = np.array([0.5, 0.6, np.nan, np.nan], np.float32)
    with raises(ConfigError, "fold 1"):
        cross_validate(scores, np.array([True, False, True, False]), np.array([0, 0, 1, 1]))
