"""Precision, recall and F1 over pairs, compared with a loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.oracles.agreement import Agreement, agreement


@pytest.mark.parametrize("seed", range(20))
def test_agreement_equals_a_loop_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 60))
    cluster = rng.integers(-3, 8, rows) * 1_000_003  # any numbers
    person = rng.integers(-1, 9, rows)
    right = together = same = 0
    for a, b in combinations(range(rows), 2):
        if min(person[a], person[b]) < 0:
            continue
        right += int(cluster[a] == cluster[b] and person[a] == person[b])
        together += int(cluster[a] == cluster[b])
        same += int(person[a] == person[b])
    result = agreement(cluster, person)
    assert result == Agreement(right, together, same)
    if right:
        precision, recall = right / together, right / same
        assert result.precision == pytest.approx(precision)
        assert result.recall == pytest.approx(recall)
        assert result.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_cluster_numbers_do_not_matter() -> None:
    person = np.array([0, 0, 1, 1, 2])
    assert agreement(np.array([7, 7, 3, 3, 5]), person) == Agreement(2, 2, 2)
    assert agreement(np.array([7, 7, 3, 3, 5]), person).f1 == 1


def test_without_pairs_the_agreement_is_perfect() -> None:
    for rows in (0, 1, 4):
        result = agreement(np.arange(rows), np.arange(rows))
        assert (result.precision, result.recall, result.f1) == (1, 1, 1)
    assert agreement(np.zeros(3, np.int64), np.arange(3)) == Agreement(0, 3, 0)
    assert agreement(np.zeros(3, np.int64), np.arange(3)).precision == 0
    assert agreement(np.arange(3), np.zeros(3, np.int64)).recall == 0


@pytest.mark.slow
def test_millions_of_photos_are_compared_by_sorting() -> None:
    cluster = np.zeros(3_000_000, np.int64)
    assert agreement(cluster, cluster).right == 3_000_000 * 2_999_999 // 2
