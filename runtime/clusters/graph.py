"""A graph of like faces to people: connected components, and within those that are no person yet, Chinese whispers."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..pairs.all_pairs import ScoredPairs

_PARTS = 8  # of a sweep; see `_whisper`
_MOST_SWEEPS = 200

logger = logging.getLogger(__name__)


def people_in_graph(links: ScoredPairs, rows: int, *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put rows together that are linked, and take apart what a chain of few links holds together.

    A component in which each is linked with each is one person. In the others every row takes, again and again, the
    label that its neighbours hold with the largest sum of scores. The same links and seed give the same answer,
    whatever the order of the links.

    Args:
        links: each pair of linked rows once; scores above 0.
        rows: N, below 2**31.
        seed: of the order in which rows listen, and of who wins among equals. 0 <= seed < 2**32.
    Returns:
        (N,) int64, equal for rows of one person; and (N,) float32, the mean score of a row's links within its person,
        1 for a row without one.
    Raises:
        MissingDependencyError: SciPy is not installed.
    Source: Biemann (2006), Chinese Whispers, an efficient graph clustering algorithm.
    """
    component = connected_components(links, rows)
    sizes = np.bincount(component, minlength=1)
    held = np.bincount(component[links.first], minlength=len(sizes))  # links of each component
    open_ = (held < sizes * (sizes - 1) // 2)[component]  # (N,) bool
    logger.info(
        "graph: %s links, %s components; Chinese whispers among %s rows",
        f"{len(links):,}",
        f"{len(sizes):,}",
        f"{int(open_.sum()):,}",
    )
    label = component
    if open_.any():
        label = component.copy()
        label[open_] = len(sizes) + _whisper(_matrix(links, open_), seed)
    kept = label[links.first] == label[links.second]
    return connected_components(links, rows, kept), _mean_scores(links, rows, kept)


def _sparse() -> Any:
    return require("scipy.sparse", extra="cluster", purpose="the graph of like faces")


def connected_components(links: ScoredPairs, rows: int, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """(N,) int64: the connected component of each row.

    Args:
        links: of any scores.
        rows: N.
        kept: (E,) bool, the links that count; None for all.
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
    """The graph of some rows that have no link to others: (n, n) CSR, both directions, columns in order."""
    number = np.cumsum(inside, dtype=np.int32) - 1
    kept = inside[links.first]
    first, second, scores = number[links.first[kept]], number[links.second[kept]], links.scores[kept]
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    rows = int(inside.sum())
    graph = _sparse().coo_matrix((np.concatenate([scores, scores]), ends), (rows, rows)).tocsr()
    graph.sort_indices()  # so that sums are taken in one order, whatever the order of the links
    return graph


def _whisper(graph: Any, seed: int) -> NDArray[np.int64]:
    """(n,) int64 labels, by which no row hears another label louder than its own.

    Rows that listen at once may swap their labels for ever; one after another they cannot, since every move raises
    the sum of scores within labels, but that would be a loop over millions. So a random part of those to whom
    something has changed listens at once, then the next: two neighbours fall into one part rarely, into other parts
    at the next sweep, and when few are left, each is a part of its own.
    """
    rows = graph.shape[0]
    draw = np.random.RandomState(seed)  # its stream is frozen for good
    labels = draw.permutation(rows).astype(graph.indices.dtype)
    # (n, n) CSR, row i has a one in column labels[i]; it holds `labels` itself, and so changes with them.
    one_hot = _sparse().csr_matrix((np.ones(rows, np.float32), labels, np.arange(rows + 1)), (rows, rows), copy=False)
    labels = one_hot.indices
    waiting = np.ones(rows, bool)
    for sweep in range(_MOST_SWEEPS):
        order = draw.permutation(np.flatnonzero(waiting))
        waiting[:] = False
        moved = 0
        for part in np.array_split(order, min(_PARTS, len(order))):
            heard = _loudest(graph[part] @ one_hot, labels[part])
            moving = part[heard != labels[part]]
            labels[part] = heard
            waiting[graph[moving].indices] = True
            moved += len(moving)
        logger.debug("sweep %d: %s of %s rows took another label", sweep + 1, f"{moved:,}", f"{len(order):,}")
        if not waiting.any():
            break
    return np.asarray(labels, np.int64)


def _loudest(votes: Any, own: NDArray[np.int32]) -> NDArray[np.int32]:
    """The label with the largest sum for each row; among equals its own, else the lowest.

    Args:
        votes: (p, n) CSR, the sum of scores by label; no row is empty.
        own: (p,) the labels that the rows have.
    """
    starts, counts = votes.indptr[:-1], np.diff(votes.indptr)
    best = votes.data == np.repeat(np.maximum.reduceat(votes.data, starts), counts)
    lowest = np.minimum.reduceat(np.where(best, votes.indices, votes.shape[1]), starts)
    stays = np.logical_or.reduceat(best & (votes.indices == np.repeat(own, counts)), starts)
    return np.where(stays, own, lowest)


def _mean_scores(links: ScoredPairs, rows: int, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(N,) float32: the mean score of the links of each row that are kept; 1 where there is none."""
    sums, counts = np.zeros(rows), np.zeros(rows, np.int64)
    for ends in (links.first, links.second):
        sums += np.bincount(ends[kept], weights=links.scores[kept], minlength=rows)
        counts += np.bincount(ends[kept], minlength=rows)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)
