"""Numbers of clusters: by size, then by first row."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_is_1_and_among_equals_the_first_row_decides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 30, 200) * 7_000_000
    labels[labels < 0] = -1
    found = number_clusters(labels, np.ones(200, np.float32), method="whispers", threshold=0.5)
    rows = {label: np.flatnonzero(labels == label).tolist() for label in np.unique(labels[labels >= 0]).tolist()}
    wanted = sorted(rows.values(), key=lambda mine: (-len(mine), mine[0]))
    assert found.count == len(wanted)
    assert [found.rows(i + 1).tolist() for i in range(found.count)] == wanted
    assert found.sizes.tolist() == list(map(len, wanted))
    assert found.labels.dtype == np.int32
    assert (found.labels == 0).sum() == (labels == -1).sum()
    assert sorted(found.order.tolist()) == list(range(200))
    for least in (1, 2, 5, 100):
        assert found.count_at_least(least) == sum(len(mine) >= least for mine in wanted)


def test_no_rows_are_no_clusters() -> None:
    found = number_clusters(np.empty(0, np.int64), np.empty(0, np.float32), method="whispers", threshold=0.5)
    assert (found.count, found.count_at_least(1), found.suspicious) == (0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "sizes", "suspicious"),
    [(100, [50, 50], 0), (102, [51, 51], 2), (2000, [101, 100], 1), (50_000, [1001, 1000], 1)],
)
def test_a_cluster_that_is_too_large_for_a_person_is_suspicious(rows: int, sizes: list[int], suspicious: int) -> None:
    """More than 5 % of the rows, or 1,000; never 50 or fewer."""
    labels = np.arange(rows) + len(sizes)
    start = 0
    for label, size in enumerate(sizes):
        labels[start : start + size] = label
        start += size
    found = number_clusters(labels, np.ones(rows, np.float32), method="whispers", threshold=0.5)
    assert found.suspicious == suspicious
