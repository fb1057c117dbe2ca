"""Find people in a graph of similar faces: connected components, split by Chinese whispers unless fully linked."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..pairs.all_pairs import ScoredPairs

_PARTS = 8  # per sweep; see `_whisper`
_MAX_SWEEPS = 200

logger = logging.getLogger(__name__)


def find_people(links: ScoredPairs, rows: int, *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Group linked rows, and split groups that only a chain of few links holds together.

    A component in which all rows are linked with each other is one person. In the others every row repeatedly takes the
    label with the largest sum of scores among its neighbours. The same links and seed give the same result, in any
    order of the links.

    Args:
        links: each pair of linked rows once; scores above 0.
        rows: N, below 2**31.
        seed: random seed of the order of the rows and of ties, 0 <= seed < 2**32.
    Returns:
        (N,) int64, equal for rows of one person; and (N,) float32, the mean score of a row's links within its person,
        1 for a row without such links.
    Raises:
        MissingDependencyError: SciPy is not installed.
    Source: Biemann (2006), Chinese Whispers, an efficient graph clustering algorithm.
    """
    component = connected_components(links, rows)
    sizes = np.bincount(component, minlength=1)
    link_counts = np.bincount(component[links.first], minlength=len(sizes))  # of each component
    incomplete = (link_counts < sizes * (sizes - 1) // 2)[component]  # (N,) bool, rows of components not fully linked
    logger.info(
        "graph: %s links, %s components; Chinese whispers among %s rows",
        f"{len(links):,}",
        f"{len(sizes):,}",
        f"{int(incomplete.sum()):,}",
    )
    label = component
    if incomplete.any():
        label = component.copy()
        label[incomplete] = len(sizes) + _whisper(_matrix(links, incomplete), seed)
    kept = label[links.first] == label[links.second]
    return connected_components(links, rows, kept), mean_scores(links, rows, kept)


def require_scipy() -> None:
    """Check, before hours of work, that the graph can be made.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    _sparse()


def _sparse() -> Any:
    return require("scipy.sparse", extra="cluster", purpose="the graph of like faces")


def connected_components(links: ScoredPairs, rows: int, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Number the connected component of each row: (N,) int64.

    Args:
        links: E links; scores are ignored.
        rows: N.
        kept: (E,) bool, the links to use; None for all.
    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    csgraph = require("scipy.sparse.csgraph", extra="cluster", purpose="the graph of like faces")
    if not rows:
        return np.empty(0, np.int64)
    ends = (links.first, links.second) if kept is None else (links.first[kept], links.second[kept])
    graph = _sparse().coo_matrix((np.ones(len(ends[0]), np.float32), ends), (rows, rows))
    return np.asarray(csgraph.connected_components(graph.tocsr(), directed=False)[1], np.int64)


def _matrix(links: ScoredPairs, inside: NDArray[np.bool_]) -> Any:
    """Return the graph of n rows that have no links to other rows: (n, n) CSR, both directions, columns in order."""
    number = np.cumsum(inside, dtype=np.int32) - 1
    kept = inside[links.first]
    first, second, scores = number[links.first[kept]], number[links.second[kept]], links.scores[kept]
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    rows = int(inside.sum())
    graph = _sparse().coo_matrix((np.concatenate([scores, scores]), ends), (rows, rows)).tocsr()
    graph.sort_indices()  # so that sums do not depend on the order of the links
    return graph


def _whisper(graph: Any, seed: int) -> NDArray[np.int64]:
    """Return (n,) int64 labels such that no row's neighbours prefer another label to its own.

    Rows that are updated at once may swap their labels forever. Updated one by one they cannot, because every move
    raises the sum of scores within labels, but that is a loop over millions. So each sweep splits the rows with changed
    neighbours into random parts, and updates one part at a time. Two neighbours are rarely in one part, and rarely
    again at the next sweep. When few rows are left, each is a part of its own.
    """
    rows = graph.shape[0]
    draw = np.random.RandomState(seed)  # its stream never changes between NumPy versions
    labels = draw.permutation(rows).astype(graph.indices.dtype)
    # (n, n) CSR with a one at row i, column labels[i]. It shares the memory of `labels`, so it changes with them.
    one_hot = _sparse().csr_matrix((np.ones(rows, np.float32), labels, np.arange(rows + 1)), (rows, rows), copy=False)
    labels = one_hot.indices
    waiting = np.ones(rows, bool)
    for sweep in range(_MAX_SWEEPS):
        order = draw.permutation(np.flatnonzero(waiting))
        waiting[:] = False
        changes = 0
        for part in np.array_split(order, min(_PARTS, len(order))):
            best = _best_labels(graph[part] @ one_hot, labels[part])
            changed = part[best != labels[part]]
            labels[part] = best
            waiting[graph[changed].indices] = True
            changes += len(changed)
        logger.debug("sweep %d: %s of %s rows changed their label", sweep + 1, f"{changes:,}", f"{len(order):,}")
        if not waiting.any():
            break
    return np.asarray(labels, np.int64)


def _best_labels(votes: Any, own: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the label with the largest sum for each row; among ties its own, else the lowest.

    Args:
        votes: (p, n) CSR, sums of scores by label; no row is empty.
        own: (p,) int32, current labels of the rows.
    """
    starts, counts = votes.indptr[:-1], np.diff(votes.indptr)
    best = votes.data == np.repeat(np.maximum.reduceat(votes.data, starts), counts)
    lowest = np.minimum.reduceat(np.where(best, votes.indices, votes.shape[1]), starts)
    stays = np.logical_or.reduceat(best & (votes.indices == np.repeat(own, counts)), starts)
    return np.where(stays, own, lowest)


def mean_scores(links: ScoredPairs, rows: int, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean score of each row's kept links, (N,) float32; 1 without such links."""
    sums, counts = np.zeros(rows), np.zeros(rows, np.int64)
    for ends in (links.first, links.second):
        sums += np.bincount(ends[kept], weights=links.scores[kept], minlength=rows)
        counts += np.bincount(ends[kept], minlength=rows)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)
