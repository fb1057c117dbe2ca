"""All pairs in blocks against a loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.metrics import allpairs
from runtime.metrics.allpairs import genuine_counts, impostor_scores
from runtime.metrics.curve import count_scores


def drawn(rows: int, people: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows whose products are exact in whatever order they are summed, and whose they are; some are nobody's."""
    rng = np.random.default_rng(seed)
    return rng.integers(-5, 6, (rows, 8)).astype(np.float32) / 16, rng.integers(-1, people, rows)


def looped(vectors: NDArray[np.float32], person: NDArray[np.int64], same: bool) -> dict[tuple[int, int], float]:
    return {
        (i, j): float(vectors[i] @ vectors[j])
        for i, j in combinations(range(len(person)), 2)
        if person[i] >= 0 and person[j] >= 0 and (person[i] == person[j]) == same
    }


@pytest.mark.parametrize(("rows", "people"), [(2, 1), (40, 5), (300, 20), (257, 257), (256, 1)])
@pytest.mark.parametrize("block", [7, 256])
def test_every_pair_once(rows: int, people: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allpairs, "_BLOCK_ROWS", block)
    vectors, person = drawn(rows, people)
    for counts, same in ((genuine_counts(vectors, person), True), (impostor_scores(vectors, person).counts, False)):
        expected = count_scores(np.array(list(looped(vectors, person, same).values()), np.float32))
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("block", [7, 256])
def test_the_highest_pairs_are_named(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allpairs, "_BLOCK_ROWS", block)
    vectors, person = drawn(300, 20)
    found = impostor_scores(vectors, person, top=7)
    scores = looped(vectors, person, False)
    assert found.scores.tolist() == sorted(scores.values(), reverse=True)[:7]
    assert [scores[first, second] for first, second in found.rows.tolist()] == found.scores.tolist()
    assert len({tuple(pair) for pair in found.rows.tolist()}) == 7


def test_too_many_pairs_are_drawn_by_a_seed() -> None:
    vectors, person = drawn(500, 50)
    everything = len(looped(vectors, person, False))
    first, again, other = (impostor_scores(vectors, person, max_pairs=20_000, seed=seed).counts for seed in (1, 1, 2))
    assert 15_000 < first.sum() <= 20_000 < everything
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    share = first[: len(first) // 2].sum() / first.sum()  # scores below 0
    whole = impostor_scores(vectors, person).counts
    assert share == pytest.approx(whole[: len(whole) // 2].sum() / whole.sum(), abs=0.02)


def test_a_draw_compares_pairs_that_are_and_each_once() -> None:
    """Vectors whose scores tell the pair: only pairs of two people, none twice."""
    rows = 64
    vectors = np.zeros((rows, rows), np.float32)
    vectors[np.arange(rows), np.arange(rows)] = 1
    person = np.arange(rows) // 2
    found = impostor_scores(vectors, person, max_pairs=600, top=10_000)
    named = [tuple(sorted(pair)) for pair in found.rows.tolist()]
    assert len(named) == len(set(named)) == found.counts.sum()
    assert all(person[i] != person[j] for i, j in named)
    assert {i for pair in named for i in pair} == set(range(rows))  # everybody takes part


@pytest.mark.parametrize("person", [[], [-1, -1, -1], [4]])
def test_nobody_forms_no_pair(person: list[int]) -> None:
    vectors = np.ones((len(person), 1), np.float32)
    whose = np.array(person, np.int64)
    assert genuine_counts(vectors, whose).sum() == 0
    found = impostor_scores(vectors, whose)
    assert found.counts.sum() == 0
    assert len(found.rows) == 0
