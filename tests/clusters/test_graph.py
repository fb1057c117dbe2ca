"""People in a graph: compared with plain loops, planted people and the guarantees of Chinese whispers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.clusters.graph import connected_components, find_people
from runtime.pairs.all_pairs import ScoredPairs
from tests.oracles.agreement import agreement
from tests.support.clustered_files import links_by_numpy, people_rows, person_of_rows
from tests.support.extras import require_package
from tests.support.facemill_command import ROOT

require_package("scipy", "cluster")


def flood_labels(links: ScoredPairs, rows: int) -> NDArray[np.int64]:
    """Label components by the lowest row that each row reaches, link by link."""
    label = np.arange(rows)
    changed = True
    while changed:
        changed = False
        for a, b in zip(links.first.tolist(), links.second.tolist(), strict=True):
            low = min(label[a], label[b])
            changed |= bool(label[a] != low or label[b] != low)
            label[a] = label[b] = low
    return label


def same_groups(labels_a: NDArray[np.int64], labels_b: NDArray[np.int64]) -> bool:
    return bool(((labels_a[:, None] == labels_a) == (labels_b[:, None] == labels_b)).all())


def random_links(rows: int, count: int, seed: int) -> ScoredPairs:
    rng = np.random.default_rng(seed)
    ends = np.unique(np.sort(rng.integers(0, rows, (count, 2)), axis=1), axis=0)
    ends = ends[ends[:, 0] != ends[:, 1]].astype(np.int64)
    return ScoredPairs(ends[:, 0], ends[:, 1], rng.uniform(0.4, 0.9, len(ends)).astype(np.float32))


@pytest.mark.parametrize("seed", range(8))
def test_components_equal_those_of_a_plain_loop(seed: int) -> None:
    links = random_links(80, 20 * seed, seed)
    assert same_groups(connected_components(links, 80), flood_labels(links, 80))
    strong = links.scores > 0.6
    fewer = ScoredPairs(links.first[strong], links.second[strong], links.scores[strong])
    assert same_groups(connected_components(links, 80, strong), flood_labels(fewer, 80))


@pytest.mark.parametrize("seed", range(8))
def test_each_row_has_its_strongest_label(seed: int) -> None:
    """Check the guarantee of Chinese whispers row by row. Each cluster is a connected part of one component."""
    links = random_links(300, 400, seed)
    label, _ = find_people(links, 300, seed=seed)
    votes: list[dict[int, float]] = [{} for _ in range(300)]
    for a, b, score in zip(links.first.tolist(), links.second.tolist(), links.scores.tolist(), strict=True):
        for row, neighbour in ((a, b), (b, a)):
            votes[row][int(label[neighbour])] = votes[row].get(int(label[neighbour]), 0.0) + score
    for row, heard in enumerate(votes):
        if heard:
            assert heard.get(int(label[row]), 0.0) >= max(heard.values()) - 1e-5
    inside = label[links.first] == label[links.second]
    assert same_groups(connected_components(links, 300, inside), label)
    component = flood_labels(links, 300)
    assert all(len(np.unique(component[label == value])) == 1 for value in np.unique(label))
    assert len(np.unique(label)) > len(np.unique(component))


def test_planted_people_are_separated_where_components_touch() -> None:
    sizes = [1] * 60 + [2] * 60 + [5] * 40 + [12] * 10
    vectors, person = people_rows(sizes, noise=0.75), person_of_rows(sizes)
    links = links_by_numpy(vectors, 0.4)
    label, _ = find_people(links, len(person))
    assert agreement(connected_components(links, len(person)), person).f1 < 0.6  # so people are joined
    assert agreement(label, person).f1 > 0.9
    clear = links_by_numpy(people_rows(sizes, noise=0.4), 0.6)
    assert agreement(find_people(clear, len(person))[0], person).f1 == 1


def test_a_single_link_does_not_join_two_groups() -> None:
    clique = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    ends = np.array([*clique, *((a + 5, b + 5) for a, b in clique), (4, 5)], np.int64)
    links = ScoredPairs(ends[:, 0], ends[:, 1], np.full(len(ends), 0.6, np.float32))
    for seed in range(10):
        label, scores = find_people(links, 11, seed=seed)
        assert same_groups(label, np.repeat([0, 1, 2], [5, 5, 1]))
        np.testing.assert_allclose(scores, [*[0.6] * 10, 1], rtol=1e-6)


def test_a_row_s_score_is_the_mean_of_its_links_within_the_cluster() -> None:
    links = ScoredPairs(
        np.array([0, 0, 1], np.int64), np.array([1, 2, 2], np.int64), np.array([0.5, 0.7, 0.9], np.float32)
    )
    label, scores = find_people(links, 4)
    assert same_groups(label, np.array([0, 0, 0, 3]))
    np.testing.assert_allclose(scores, [0.6, 0.7, 0.8, 1.0], rtol=1e-6)


def test_clusters_depend_on_the_seed_and_not_on_the_order_of_links() -> None:
    links = random_links(400, 1500, 3)
    order = np.random.default_rng(1).permutation(len(links.scores))
    shuffled = ScoredPairs(links.first[order], links.second[order], links.scores[order])
    label, scores = find_people(links, 400, seed=5)
    again, again_scores = find_people(shuffled, 400, seed=5)
    np.testing.assert_array_equal(label, again)
    np.testing.assert_allclose(scores, again_scores, rtol=1e-6)
    assert any(not same_groups(label, find_people(links, 400, seed=seed)[0]) for seed in range(6, 12))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_without_links_each_row_is_its_own_cluster(rows: int) -> None:
    none = np.empty(0, np.int64)
    label, scores = find_people(ScoredPairs(none, none, np.empty(0, np.float32)), rows)
    assert len(np.unique(label)) == rows
    assert scores.tolist() == [1.0] * rows


def test_labels_of_pairs_and_chains_converge() -> None:
    """In these graphs, rows that update at the same time swap labels most easily."""
    first = np.arange(0, 20_000, dtype=np.int64)
    chain = ScoredPairs(first, first + 1, np.full(20_000, 0.5, np.float32))
    label, _ = find_people(chain, 20_001)
    sizes = np.unique(label, return_counts=True)[1]
    assert sizes.min() >= 2
    stars = ScoredPairs(first // 10 * 10, first // 10 * 10 + first % 10 + 1, np.full(20_000, 0.5, np.float32))
    linked = first % 10 < 9
    label, _ = find_people(ScoredPairs(stars.first[linked], stars.second[linked], stars.scores[linked]), 30_000)
    assert same_groups(label[:200], np.arange(200) // 10)


@pytest.mark.slow
def test_without_scipy_the_error_names_the_package_to_install() -> None:
    code = (
        "import sys\nsys.modules['scipy'] = None\nimport numpy as np\nfrom runtime.pairs.all_pairs import ScoredPairs\n"
        "from runtime.clusters.graph import find_people\n"
        "find_people(ScoredPairs(np.array([0]), np.array([1]), np.array([.5], np.float32)), 2)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "MissingDependencyError" in result.stderr
    assert "pip install scipy" in result.stderr
