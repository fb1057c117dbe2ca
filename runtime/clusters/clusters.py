"""Cluster the rows of a file, by a threshold or into a known number of people. Cluster 1 is the largest."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..interrupt import Control
from ..metrics.verification import USUAL_RATE, check_threshold
from ..pairs.all_pairs import ScoredPairs
from ..pairs.checkpoint import Checkpoint
from ..pairs.pairs import PairQuery, find_pairs
from ..progress import Listener
from ..review.obey import obey
from ..review.rows import RowRules
from ..search.compare import model_threshold
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .graph import find_people, mean_scores
from .kmeans import split_by_kmeans

# Mean number of false links per photo, to photos of other people. Chinese whispers tolerate a few false links, as long
# as most links of a photo are right.
FALSE_LINKS = 0.02
# A cluster with a larger share of the file than this, within these bounds, is unlikely to be one person.
_SUSPICIOUS_SHARE = 0.05
_MIN_SUSPICIOUS_PHOTOS = 50
_MAX_SUSPICIOUS_PHOTOS = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clusters:
    """N rows in C clusters. Cluster 1 is the largest; equal clusters are in the order of their first rows.

    Attributes:
        labels: (N,) int32, the number of each row's cluster, 1 to C; 0 for a row in no cluster.
        scores: (N,) float32, similarity of each row to the rest of its cluster.
        method: "whispers" or "k-means".
        threshold: threshold of the links; None for k-means.
        k: number of centres; None for whispers.
        seed: random seed.
        before_review: (N,) int32, the same numbers without the decisions of people; None if these changed none.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    method: str
    threshold: float | None
    k: int | None
    seed: int
    before_review: NDArray[np.int32] | None = None

    @property
    def count(self) -> int:
        """Number of clusters, C."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of rows of cluster 1, 2 ...: (C,) int64, descending."""
        return np.bincount(self.labels, minlength=1)[1:]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All rows sorted by cluster, then by row; rows in no cluster come first. (N,) int64."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """Start of each cluster in `order`, and the end of the last: (C + 1,) int64."""
        return len(self.labels) - int(self.sizes.sum()) + np.concatenate([[0], np.cumsum(self.sizes)])

    def rows(self, cluster: int) -> NDArray[np.int64]:
        """Return the rows of a cluster, ascending."""
        return self.order[self._bounds[cluster - 1] : self._bounds[cluster]]

    def count_at_least(self, min_rows: int) -> int:
        """Count the clusters with at least `min_rows` rows; these are clusters 1 to that count."""
        return int((self.sizes >= min_rows).sum())

    @property
    def suspicious(self) -> int:
        """Number of clusters that are too large to be one person."""
        limit = max(_MIN_SUSPICIOUS_PHOTOS, round(_SUSPICIOUS_SHARE * len(self.labels)))
        return self.count_at_least(min(_MAX_SUSPICIOUS_PHOTOS, limit) + 1)


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
        labels: (N,) int64, equal for rows of one cluster; -1 for rows in no cluster.
        scores, method, threshold, k, seed: see Clusters.
    """
    inside = labels >= 0
    _, first, dense, sizes = np.unique(labels[inside], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(1, len(sizes) + 1)
    numbers = np.zeros(len(labels), np.int32)
    numbers[inside] = rank[dense.reshape(-1)]
    return Clusters(numbers, scores, method, threshold, k, seed)


def cluster_by_threshold(
    embeddings: EmbeddingFile,
    checkpoint: Checkpoint,
    query: PairQuery,
    *,
    seed: int = 0,
    mask: NDArray[np.bool_] | None = None,
    rules: RowRules | None = None,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Clusters:
    """Link all pairs of rows that reach a threshold, and find the people in this graph; see `graph`.

    Two faces of one photo are not linked.

    Args:
        embeddings: an open embedding file.
        checkpoint: checkpoint of that file; an unfinished search for the same pairs resumes.
        query: threshold, above 0, and limits of the links.
        seed: random seed of `find_people`.
        mask: (N,) bool, the rows to group; the others are in no cluster. None for all.
        rules: decisions that the clusters obey; None for none.
        force: drop an unfinished search with other values.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search for links; None for neither.
    Raises:
        TooManyPairsError: more than `query.max_pairs` links; the threshold is too low.
        ConfigError: the threshold is out of range, or an unfinished search has other values.
        Interrupted: the control stopped the search; the same call resumes it.
        StorageError: the file or the checkpoint is damaged.
        EngineError, MissingDependencyError: the device, or a package, is not available.
    """
    check_threshold(query.threshold, above_zero=True)
    links = find_pairs(embeddings, checkpoint, query, force=force, listener=listener, control=control)
    if links.share is not None:
        logger.warning("the links: %s", links.method())
    pairs = links.pairs
    if mask is not None:
        kept = mask[pairs.first] & mask[pairs.second]
        pairs = ScoredPairs(pairs.first[kept], pairs.second[kept], pairs.scores[kept])
    labels, scores = find_people(pairs, embeddings.rows, seed=seed)
    if mask is not None:
        labels = np.where(mask, labels, -1)
    whispered = number_clusters(labels, scores, method="whispers", threshold=query.threshold, seed=seed)
    return whispered if rules is None else obey_decisions(whispered, rules, embeddings, pairs)


def cluster_by_count(
    embeddings: EmbeddingFile,
    k: int,
    *,
    seed: int = 0,
    mask: NDArray[np.bool_] | None = None,
    rules: RowRules | None = None,
    listener: Listener | None = None,
) -> Clusters:
    """Split all rows, or those of a mask, among k people by k-means; see `kmeans.split_by_kmeans`.

    Decisions, the rules, may join people or split them, so that there are fewer or more than k.
    """
    labels, scores = split_by_kmeans(embeddings, k, seed=seed, mask=mask, listener=listener)
    split = number_clusters(labels, scores, method="k-means", k=k, seed=seed)
    return split if rules is None else obey_decisions(split, rules, embeddings)


def obey_decisions(
    clusters: Clusters, rules: RowRules, embeddings: EmbeddingFile, links: ScoredPairs | None = None
) -> Clusters:
    """Change clusters so that they obey decisions; see `review.obey`.

    Args:
        clusters: clusters of the rows of a file.
        rules: decisions about these rows.
        embeddings: the open file.
        links: the links from which the clusters were made: the scores of rows are then computed again. None to keep
            the scores.
    Raises:
        StorageError: the file is damaged.
    """
    labels = obey(clusters.labels.astype(np.int64) - 1, rules, embeddings.vectors_at)
    scores = clusters.scores
    if links is not None:
        scores = mean_scores(links, len(labels), labels[links.first] == labels[links.second])
    obeyed = number_clusters(
        labels, scores, method=clusters.method, threshold=clusters.threshold, k=clusters.k, seed=clusters.seed
    )
    if np.array_equal(obeyed.labels, clusters.labels):
        return clusters
    return replace(obeyed, before_review=clusters.labels)


def default_threshold(embeddings: EmbeddingFile) -> float:
    """Return the lowest threshold with at most FALSE_LINKS false links per photo, by the calibration.

    If the calibration has too few pairs to show so few, return the lowest score that none of its pairs reached, and log
    a warning.

    Without a calibration, the threshold of the model file, by which `facemill compare` judges two photos, serves for so
    few photos that it keeps the same rule.

    Raises:
        ConfigError: the file has no calibration, and too many photos for the threshold of the model file.
    """
    calibration = find_calibration(embeddings)
    if calibration is None:
        return _threshold_of_model(embeddings)
    lowest = calibration.lowest(FALSE_LINKS, embeddings.rows)
    if lowest is None:
        logger.warning(
            "the calibration's %s pairs are too few to show %g false links per photo among %s photos: the threshold is "
            "%.3f, which none of these pairs reached. Check the clusters with --sheets",
            f"{calibration.pairs:,}",
            FALSE_LINKS,
            f"{embeddings.rows:,}",
            calibration.beyond,
        )
        lowest = min(calibration.beyond, 1.0)
    return lowest


def _threshold_of_model(embeddings: EmbeddingFile) -> float:
    """The threshold of the model file, if at most FALSE_LINKS strangers of a photo reach it."""
    stated = model_threshold(str(embeddings.metadata.get("model_sha256", "")))
    text = f"{embeddings.path} has no calibration, which gives the default threshold"
    if stated is not None and stated.value is not None:
        strangers = USUAL_RATE * embeddings.rows
        if strangers <= FALSE_LINKS:
            logger.info("threshold %g (%s)", stated.value, stated.origin)
            return stated.value
        text += (
            f". facemill compare judges two photos by {stated.value:g} ({stated.origin}); among {embeddings.rows:,} "
            f"photos that would link each to {strangers:,.2g} strangers on average; expected: at most {FALSE_LINKS:g}"
        )
    raise ConfigError(
        f"{text}. Set a higher one with --threshold, or the number of people with -k, or calibrate the file with: "
        f"facemill evaluate FOLDER --calibrate {embeddings.path}"
    )
