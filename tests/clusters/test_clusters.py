"""Cluster numbers are ordered by size, then by first row."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters


@pytest.mark.parametrize("seed", range(10))
def test_clusters_are_numbered_by_size_then_by_first_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 30, 200) * 7_000_000
    labels[labels < 0] = -1
    clusters = number_clusters(labels, np.ones(200, np.float32), method="whispers", threshold=0.5)
    rows = {label: np.flatnonzero(labels == label).tolist() for label in np.unique(labels[labels >= 0]).tolist()}
    expected = sorted(rows.values(), key=lambda members: (-len(members), members[0]))
    assert clusters.count == len(expected)
    assert [clusters.rows(i + 1).tolist() for i in range(clusters.count)] == expected
    assert clusters.sizes.tolist() == list(map(len, expected))
    assert clusters.labels.dtype == np.int32
    assert (clusters.labels == 0).sum() == (labels == -1).sum()
    assert sorted(clusters.order.tolist()) == list(range(200))
    for least in (1, 2, 5, 100):
        assert clusters.count_at_least(least) == sum(len(members) >= least for members in expected)


def test_zero_rows_give_zero_clusters() -> None:
    clusters = number_clusters(np.empty(0, np.int64), np.empty(0, np.float32), method="whispers", threshold=0.5)
    assert (clusters.count, clusters.count_at_least(1), clusters.suspicious) == (0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "sizes", "suspicious"),
    [(100, [50, 50], 0), (102, [51, 51], 2), (2000, [101, 100], 1), (50_000, [1001, 1000], 1)],
)
def test_a_cluster_that_is_too_large_for_a_person_is_suspicious(rows: int, sizes: list[int], suspicious: int) -> None:
    """Suspicious: more than 5 % of the rows or more than 1,000, but never 50 or fewer."""
    labels = np.arange(rows) + len(sizes)
    start = 0
    for label, size in enumerate(sizes):
        labels[start : start + size] = label
        start += size
    clusters = number_clusters(labels, np.ones(rows, np.float32), method="whispers", threshold=0.5)
    assert clusters.suspicious == suspicious
