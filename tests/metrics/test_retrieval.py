"""recall@1, R-Precision and MAP@R, by hand and against a loop that sorts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.metrics import retrieval
from runtime.metrics.retrieval import retrieve


def naive(vectors: NDArray[np.float32], person: NDArray[np.int64]) -> list[tuple[float, float, float]]:
    """Musgrave's definitions, one query after the other; ties broken against the query."""
    found = []
    for query in range(len(person)):
        others = [i for i in range(len(person)) if i != query and person[i] >= 0]
        relevant = sum(person[i] == person[query] for i in others)
        if person[query] < 0 or not relevant:
            continue
        scores = vectors @ vectors[query]
        ranked = sorted(others, key=lambda i: (-scores[i], person[i] == person[query]))
        right = [person[i] == person[query] for i in ranked[:relevant]]
        precisions = [np.mean(right[: i + 1]) if right[i] else 0 for i in range(relevant)]
        found.append((float(right[0]), float(np.mean(right)), float(np.mean(precisions))))
    return found


def on_a_line(*places: float) -> NDArray[np.float32]:
    """Unit vectors whose cosines fall with the distance of their places."""
    angles = np.array(places)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_by_hand() -> None:
    # A at 0, 0.1, 0.5; B at 0.2, 0.25; C alone at 0.32.
    found = retrieve(on_a_line(0, 0.1, 0.5, 0.2, 0.25, 0.32), np.array([0, 0, 0, 1, 1, 2]))
    assert found is not None
    assert found.alone == 1
    assert found.person.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(
        found.values,
        [
            (1, 1 / 2, 1 / 2),  # from 0: A at 0.1, then B
            (0, 1 / 2, 1 / 4),  # from 0.1: tied at 0.1 are A at 0 and B at 0.2, and B counts as first
            (0, 0, 0),  # from 0.5: C, B, B
            (1, 1, 1),
            (1, 1, 1),
        ],
    )
    np.testing.assert_allclose(found.means, [3 / 5, 3 / 5, 11 / 20])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1, 64 << 20])
def test_against_sorting(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", block)
    rng = np.random.default_rng(seed)
    person = rng.integers(-1, 15, 90)
    centres = rng.standard_normal((16, 6))
    vectors = (centres[person] + rng.normal(0, 0.8, (90, 6))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = retrieve(vectors, person)
    assert found is not None
    expected = naive(vectors, person)
    np.testing.assert_allclose(found.values, expected)
    assert 0 < np.mean(expected) < 1
    assert found.alone + len(expected) == (person >= 0).sum()


def test_a_network_that_answers_alike_for_everybody_finds_nobody() -> None:
    found = retrieve(np.ones((8, 1), np.float32), np.repeat([0, 1], 4))
    assert found is not None
    assert found.values.sum() == 0


def test_photographs_of_one_person_alone_are_all_found() -> None:
    found = retrieve(on_a_line(0, 1, 2), np.zeros(3, np.int64))
    assert found is not None
    assert (found.values == 1).all()


def test_a_lost_photograph_finds_nothing_and_is_missed() -> None:
    vectors, person = on_a_line(0, 0.1, 0.2, 2, 2.1), np.array([0, 0, 0, 1, 1])
    found = retrieve(vectors, person, np.array([0, 2, -1]))
    assert found is not None
    assert found.person.tolist() == [0, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(found.values, [(1, 2 / 3, 2 / 3)] * 3 + [(1, 1, 1)] * 2 + [(0, 0, 0)])
    assert found.alone == 1  # the only photograph of person 2


def test_a_person_of_whom_one_of_two_is_lost_is_not_found() -> None:
    found = retrieve(on_a_line(0, 1), np.array([0, 1]), np.array([0]))
    assert found is not None
    assert found.values.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found.alone == 1


@pytest.mark.parametrize("person", [[], [-1, -1], [0, 1, 2]])
def test_nobody_with_two_photographs_is_none(person: list[int]) -> None:
    assert retrieve(np.ones((len(person), 2), np.float32), np.array(person, np.int64)) is None
