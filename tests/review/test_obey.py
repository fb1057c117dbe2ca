"""Clusters obey decisions, whatever the clusters and the decisions are, and change as little as they must."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.review.constraints import Decision
from runtime.review.obey import obey
from runtime.review.rows import RowRules
from runtime.review.store import Stored
from tests.review.test_constraints import random_decisions
from tests.support.clustered_files import people_rows


def rules_of(*decisions: Decision, face_of: dict[int, int] | None = None) -> RowRules:
    return RowRules(Stored(1, {}, decisions), {row: row for row in range(3)} if face_of is None else face_of)


def no_vectors(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    raise AssertionError("no cluster has to be split")


@pytest.mark.slow
def test_no_decision_is_broken() -> None:
    draw, rng = random.Random(3), np.random.default_rng(3)
    splits = 0
    for _ in range(600):
        count = 24
        vectors = people_rows([6] * 4, seed=draw.randrange(1000))
        labels = rng.integers(-1, 6, count).astype(np.int64)
        faces = draw.sample(range(count), 7)
        face_of = {row: number for number, row in enumerate(faces)}
        rules = rules_of(*random_decisions(draw, range(7)), face_of=face_of)
        new = obey(labels, rules, vectors.__getitem__)
        assert np.array_equal(new < 0, labels < 0)
        for a, b in combinations(faces, 2):
            if min(new[a], new[b]) >= 0:
                state = rules.state(a, b)
                assert state != "same" or new[a] == new[b]
                assert state != "different" or new[a] != new[b]
        # The rules hold for the result already, and what no decision reaches stays.
        again = obey(new, rules, vectors.__getitem__)
        assert same_groups(again, new)
        untouched = ~np.isin(labels, labels[faces])
        assert np.array_equal(new[untouched], labels[untouched])
        splits += bool(((labels[:, None] == labels) & (new[:, None] != new)).any())
    assert splits > 100


def same_groups(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether two labellings put the same rows together."""
    return np.array_equal(first[:, None] == first, second[:, None] == second)


def test_one_decision_joins_two_clusters() -> None:
    labels = np.array([0, 0, 1, 1, 2, -1])
    new = obey(labels, rules_of(Decision(1, "same", (1,), (2,))), no_vectors)
    assert same_groups(new, np.array([0, 0, 0, 0, 2, -1]))


def test_rows_without_a_decision_follow_the_most_similar_side() -> None:
    vectors = people_rows([5, 4], noise=0.3)
    labels = np.zeros(9, np.int64)
    new = obey(labels, rules_of(Decision(1, "different", (2,), (7,)), face_of={2: 2, 7: 7}), vectors.__getitem__)
    assert same_groups(new, np.array([0] * 5 + [1] * 4))


def test_a_name_alone_moves_nothing() -> None:
    labels = np.array([0, 0, 1])
    new = obey(labels, rules_of(Decision(1, "name", (0, 1, 2), name="Anna")), no_vectors)
    assert np.array_equal(new, labels)


def test_decisions_about_missing_rows_are_no_matter() -> None:
    rules = rules_of(Decision(1, "same", (0,), (5,)), face_of={0: 0})
    assert np.array_equal(obey(np.array([0, 1]), rules, no_vectors), [2, 1])
    assert np.array_equal(obey(np.array([-1, -1]), rules, no_vectors), [-1, -1])
    assert len(obey(np.empty(0, np.int64), rules_of(face_of={}), no_vectors)) == 0


def test_a_large_cluster_with_a_name_and_a_split_is_fast_enough_to_click() -> None:
    count = 3000
    vectors = people_rows([count], dimension=16)
    faces = tuple(range(count))
    face_of = {row: row for row in faces}
    decisions = (Decision(1, "name", faces, name="Anna"), Decision(2, "split", faces[:2], faces[2:]))
    new = obey(np.zeros(count, np.int64), rules_of(*decisions, face_of=face_of), vectors.__getitem__)
    assert len(set(new[:2].tolist())) == 1
    assert len(np.unique(new)) == 2
