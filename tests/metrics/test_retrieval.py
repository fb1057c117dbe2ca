"""recall@1, R-Precision and MAP@R, by hand and against a loop that sorts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.metrics import retrieval
from runtime.metrics.retrieval import retrieve


def retrieve_by_loop(vectors: NDArray[np.float32], person: NDArray[np.int64]) -> list[tuple[float, float, float]]:
    """Apply Musgrave's definitions query by query; ties count against the query."""
    hits = []
    for query in range(len(person)):
        mates = [i for i in range(len(person)) if i != query and person[i] >= 0]
        relevant = sum(person[i] == person[query] for i in mates)
        if person[query] < 0 or not relevant:
            continue
        scores = vectors @ vectors[query]
        ranked = sorted(mates, key=lambda i: (-scores[i], person[i] == person[query]))
        right = [person[i] == person[query] for i in ranked[:relevant]]
        precisions = [np.mean(right[: i + 1]) if right[i] else 0 for i in range(relevant)]
        hits.append((float(right[0]), float(np.mean(right)), float(np.mean(precisions))))
    return hits


def vectors_on_a_line(*places: float) -> NDArray[np.float32]:
    """Make unit vectors with cosines that fall with the distance of their positions."""
    angles = np.array(places)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_means_computed_by_hand() -> None:
    # A at 0, 0.1, 0.5; B at 0.2, 0.25; C alone at 0.32.
    retrieval = retrieve(vectors_on_a_line(0, 0.1, 0.5, 0.2, 0.25, 0.32), np.array([0, 0, 0, 1, 1, 2]))
    assert retrieval is not None
    assert retrieval.alone == 1
    assert retrieval.person.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(
        retrieval.values,
        [
            (1, 1 / 2, 1 / 2),  # from 0: A at 0.1, then B
            (0, 1 / 2, 1 / 4),  # from 0.1: tied at 0.1 are A at 0 and B at 0.2, and B counts as first
            (0, 0, 0),  # from 0.5: C, B, B
            (1, 1, 1),
            (1, 1, 1),
        ],
    )
    np.testing.assert_allclose(retrieval.means, [3 / 5, 3 / 5, 11 / 20])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1, 64 << 20])
def test_means_equal_those_of_a_sorting_loop(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", block)
    rng = np.random.default_rng(seed)
    person = rng.integers(-1, 15, 90)
    centres = rng.standard_normal((16, 6))
    vectors = (centres[person] + rng.normal(0, 0.8, (90, 6))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    result = retrieve(vectors, person)
    assert result is not None
    expected = retrieve_by_loop(vectors, person)
    np.testing.assert_allclose(result.values, expected)
    assert 0 < np.mean(expected) < 1
    assert result.alone + len(expected) == (person >= 0).sum()


def test_a_network_with_constant_output_finds_no_person() -> None:
    retrieval = retrieve(np.ones((8, 1), np.float32), np.repeat([0, 1], 4))
    assert retrieval is not None
    assert retrieval.values.sum() == 0


def test_photos_of_a_single_person_are_all_found() -> None:
    retrieval = retrieve(vectors_on_a_line(0, 1, 2), np.zeros(3, np.int64))
    assert retrieval is not None
    assert (retrieval.values == 1).all()


def test_a_lost_photo_counts_as_a_missed_query_and_hit() -> None:
    vectors, person = vectors_on_a_line(0, 0.1, 0.2, 2, 2.1), np.array([0, 0, 0, 1, 1])
    retrieval = retrieve(vectors, person, np.array([0, 2, -1]))
    assert retrieval is not None
    assert retrieval.person.tolist() == [0, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(retrieval.values, [(1, 2 / 3, 2 / 3)] * 3 + [(1, 1, 1)] * 2 + [(0, 0, 0)])
    assert retrieval.alone == 1  # the only photo of person 2


def test_a_person_with_one_of_two_photos_lost_is_not_found() -> None:
    retrieval = retrieve(vectors_on_a_line(0, 1), np.array([0, 1]), np.array([0]))
    assert retrieval is not None
    assert retrieval.values.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert retrieval.alone == 1


@pytest.mark.parametrize("person", [[], [-1, -1], [0, 1, 2]])
def test_without_a_second_photo_there_is_no_retrieval(person: list[int]) -> None:
    assert retrieve(np.ones((len(person), 2), np.float32), np.array(person, np.int64)) is None
