"""All pairs in blocks, compared with a loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.metrics import allpairs
from runtime.metrics.allpairs import genuine_counts, impostor_scores
from runtime.metrics.curve import count_scores


def draw_rows(rows: int, people: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make rows with products that are exact in any summation order, and their people; some rows have none."""
    rng = np.random.default_rng(seed)
    return rng.integers(-5, 6, (rows, 8)).astype(np.float32) / 16, rng.integers(-1, people, rows)


def loop_over_pairs(
    vectors: NDArray[np.float32], person: NDArray[np.int64], same: bool
) -> dict[tuple[int, int], float]:
    return {
        (i, j): float(vectors[i] @ vectors[j])
        for i, j in combinations(range(len(person)), 2)
        if person[i] >= 0 and person[j] >= 0 and (person[i] == person[j]) == same
    }


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "people"), [(2, 1), (40, 5), (300, 20), (257, 257), (256, 1)])
@pytest.mark.parametrize("block", [7, 256])
def test_every_pair_is_counted_once(rows: int, people: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allpairs, "_BLOCK_ROWS", block)
    vectors, person = draw_rows(rows, people)
    for counts, same in ((genuine_counts(vectors, person), True), (impostor_scores(vectors, person).counts, False)):
        expected = count_scores(np.array(list(loop_over_pairs(vectors, person, same).values()), np.float32))
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("block", [7, 256])
def test_the_highest_pairs_are_returned(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allpairs, "_BLOCK_ROWS", block)
    vectors, person = draw_rows(300, 20)
    impostors = impostor_scores(vectors, person, top=7)
    scores = loop_over_pairs(vectors, person, False)
    assert impostors.scores.tolist() == sorted(scores.values(), reverse=True)[:7]
    assert [scores[first, second] for first, second in impostors.rows.tolist()] == impostors.scores.tolist()
    assert len({tuple(pair) for pair in impostors.rows.tolist()}) == 7


@pytest.mark.slow
def test_too_many_pairs_are_sampled_with_a_seed() -> None:
    vectors, person = draw_rows(500, 50)
    everything = len(loop_over_pairs(vectors, person, False))
    first, again, seed_2 = (impostor_scores(vectors, person, max_pairs=20_000, seed=seed).counts for seed in (1, 1, 2))
    assert 15_000 < first.sum() <= 20_000 < everything
    np.testing.assert_array_equal(first, again)
    assert (first != seed_2).any()
    share = first[: len(first) // 2].sum() / first.sum()  # scores below 0
    all_counts = impostor_scores(vectors, person).counts
    assert share == pytest.approx(all_counts[: len(all_counts) // 2].sum() / all_counts.sum(), abs=0.02)


def test_a_sample_has_only_impostor_pairs_without_repeats() -> None:
    """The scores identify the pairs: only pairs of two people, none twice."""
    rows = 64
    vectors = np.zeros((rows, rows), np.float32)
    vectors[np.arange(rows), np.arange(rows)] = 1
    person = np.arange(rows) // 2
    scores = impostor_scores(vectors, person, max_pairs=600, top=10_000)
    named = [tuple(sorted(pair)) for pair in scores.rows.tolist()]
    assert len(named) == len(set(named)) == scores.counts.sum()
    assert all(person[i] != person[j] for i, j in named)
    assert {i for pair in named for i in pair} == set(range(rows))  # every row takes part


@pytest.mark.parametrize("person", [[], [-1, -1, -1], [4]])
def test_rows_without_a_person_form_no_pair(person: list[int]) -> None:
    vectors = np.ones((len(person), 1), np.float32)
    labels = np.array(person, np.int64)
    assert genuine_counts(vectors, labels).sum() == 0
    scores = impostor_scores(vectors, labels)
    assert scores.counts.sum() == 0
    assert len(scores.rows) == 0
