"""Cluster the rows of a file, by a threshold or into a known number of people. Cluster 1 is the largest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..interrupt import Control
from ..pairs.checkpoint import Checkpoint
from ..pairs.pairs import PairQuery, find_pairs
from ..progress import Listener
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .graph import people_in_graph
from .kmeans import split_by_kmeans

# Photographs of other people that one photograph is linked with, on average. Whispers see through a false link here and
# there, as long as most links of a photograph are right.
FALSE_LINKS = 0.02
# A cluster with more photos than the share of the file, within these bounds, is unlikely to be one person.
_SUSPICIOUS_SHARE = 0.05
_MIN_SUSPICIOUS_PHOTOS = 50
_MAX_SUSPICIOUS_PHOTOS = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clusters:
    """N rows in C clusters. Cluster 1 is the largest; among equals the one whose first row comes first.

    Attributes:
        of: (N,) int32, the number of each row's cluster, 1 to C; 0 for a row that is in none.
        scores: (N,) float32, how like the others of its cluster a row is.
        method: "whispers" or "k-means".
        threshold: of the links; None for k-means.
        k: centres; None for whispers.
        seed: of what was drawn.
    """

    of: NDArray[np.int32]
    scores: NDArray[np.float32]
    method: str
    threshold: float | None
    k: int | None
    seed: int

    @property
    def count(self) -> int:
        """C."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(C,) int64, descending: rows of cluster 1, 2 ..."""
        return np.bincount(self.of, minlength=1)[1:]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) int64: all rows by cluster, those of a cluster ascending; the rows of none come first."""
        return np.argsort(self.of, kind="stable")

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """(C + 1,) int64: where each cluster begins in `order`, and where the last ends."""
        return len(self.of) - int(self.sizes.sum()) + np.concatenate([[0], np.cumsum(self.sizes)])

    def rows(self, cluster: int) -> NDArray[np.int64]:
        """The rows of a cluster, ascending."""
        return self.order[self._bounds[cluster - 1] : self._bounds[cluster]]

    def with_at_least(self, least: int) -> int:
        """How many clusters have so many rows; they are clusters 1 to that number."""
        return int((self.sizes >= least).sum())

    @property
    def suspicious(self) -> int:
        """How many clusters are too large to be a person."""
        return self.with_at_least(
            min(_MAX_SUSPICIOUS_PHOTOS, max(_MIN_SUSPICIOUS_PHOTOS, round(_SUSPICIOUS_SHARE * len(self.of)))) + 1
        )


def number_clusters(
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    method: str,
    threshold: float | None = None,
    k: int | None = None,
    seed: int = 0,
) -> Clusters:
    """Number clusters by size.

    Args:
        labels: (N,) int64, equal for rows of one cluster; -1 for rows of none.
        scores, method, threshold, k, seed: as in Clusters.
    """
    inside = labels >= 0
    _, first, dense, sizes = np.unique(labels[inside], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(1, len(sizes) + 1)
    of = np.zeros(len(labels), np.int32)
    of[inside] = rank[dense.reshape(-1)]
    return Clusters(of, scores, method, threshold, k, seed)


def cluster_by_threshold(
    gallery: EmbeddingFile,
    parts: Checkpoint,
    wanted: PairQuery,
    *,
    seed: int = 0,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Clusters:
    """Link all pairs of rows that reach a threshold, and find the people in the graph; see `graph`.

    Two faces of one photograph are not linked.

    Args:
        gallery: an open embedding file.
        parts: of that file, as for `find_pairs`: the search goes on with what an unfinished one has left.
        wanted: of the links; the threshold is above 0.
        seed: of `people_in_graph`.
        force: as for `find_pairs`.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search for links; None for neither.
    Raises:
        TooManyPairsError: the threshold is so low that there are more links.
        ConfigError, MissingDependencyError, EngineError, StorageError, Interrupted: as their messages say.
    """
    if not 0 < wanted.threshold <= 1:
        raise ConfigError(f"the threshold is {wanted.threshold}; wanted: above 0, and at most 1")
    links = find_pairs(gallery, parts, wanted, force=force, listener=listener, control=control)
    if links.share is not None:
        logger.warning("the links: %s", links.method())
    labels, scores = people_in_graph(links.pairs, gallery.rows, seed=seed)
    return number_clusters(labels, scores, method="whispers", threshold=wanted.threshold, seed=seed)


def cluster_by_count(gallery: EmbeddingFile, k: int, *, seed: int = 0, listener: Listener | None = None) -> Clusters:
    """Split all rows among k people by k-means; see `kmeans.split_by_kmeans`."""
    labels, scores = split_by_kmeans(gallery, k, seed=seed, listener=listener)
    return number_clusters(labels, scores, method="k-means", k=k, seed=seed)


def default_threshold(gallery: EmbeddingFile) -> float:
    """The lowest threshold at which a photograph is linked with FALSE_LINKS strangers at most, by the calibration.

    Where the calibration has too few pairs to show so few, it is the lowest at which it has none, and the log says so.

    Raises:
        ConfigError: the file carries no calibration.
    """
    calibration = find_calibration(gallery)
    if calibration is None:
        raise ConfigError(
            f"who belongs together in {gallery.path} is not decided: it carries no calibration that gives a threshold. "
            f"Name one with --threshold, or the number of people with -k, or calibrate the file with: "
            f"facemill evaluate FOLDER --calibrate {gallery.path}"
        )
    found = calibration.lowest(FALSE_LINKS, gallery.rows)
    if found is None:
        logger.warning(
            "the calibration's %s pairs are too few to show that a photograph is linked with %g strangers among %s: "
            "the threshold is %.3f, which none of them reached. Look at the sheets",
            f"{calibration.pairs:,}",
            FALSE_LINKS,
            f"{gallery.rows:,}",
            calibration.beyond,
        )
        found = min(calibration.beyond, 1.0)
    return found
