"""A known number of people: spherical k-means by FAISS, trained on a sample, then every row to its nearest centre."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..extras import require
from ..progress import Listener, Reporter, track
from ..storage.file import EmbeddingFile

_ROUNDS = 20
_PER_CENTRE = 256  # rows of the sample for each centre: more do not move it
_SAMPLE_BYTES = 1 << 30

logger = logging.getLogger(__name__)


def split_by_kmeans(
    gallery: EmbeddingFile, k: int, *, seed: int = 0, listener: Listener | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put rows together that have the same nearest of k centres.

    The sample is drawn evenly from the file and takes at most 1 GiB; the centres begin at rows of it. A row of zeros,
    for which the network answered zero, is like nobody.

    Args:
        gallery: an open embedding file.
        k: centres.
        seed: of the sample and the first centres; the same file, k and seed give the same answer on the same machine.
            0 <= seed < 2**31.
        listener: shows the progress; None logs a line every five seconds.
    Returns:
        (N,) int64, the number of a row's centre, -1 for a row of zeros; and (N,) float32, its score with that centre.
    Raises:
        ConfigError: there are fewer rows than k, or k is too large for the sample.
        MissingDependencyError: FAISS is not installed.
        StorageError: the gallery is damaged.
    """
    room = max(1, _SAMPLE_BYTES // (4 * gallery.dimension))
    if not 1 <= k <= gallery.rows:
        raise ConfigError(
            f"{k:,} people were asked for, and {gallery.path} has {gallery.rows:,} embeddings; wanted: 1 to as many. "
            f"Give a smaller -k, or --threshold where the number of people is not known"
        )
    if k > room:
        raise ConfigError(
            f"{k:,} people were asked for; wanted: at most {room:,}, since k-means learns from so many embeddings of "
            f"{gallery.dimension} numbers. For more people use --threshold"
        )
    faiss = require("faiss", extra="cpu", purpose="k-means")
    draw = np.random.RandomState(seed)  # its stream is frozen for good
    sample = _sample(gallery, min(gallery.rows, room, k * _PER_CENTRE), draw)
    if len(sample) < k:
        raise ConfigError(
            f"{k:,} people were asked for, and only {len(sample):,} embeddings in {gallery.path} are not zero; wanted: "
            f"at most as many"
        )
    centres = sample[np.sort(draw.choice(len(sample), k, replace=False))]  # (k, D)
    with Reporter("k-means", _ROUNDS, unit="rounds", listener=listener) as reporter:
        for turn in range(_ROUNDS):
            centres = _improve(faiss, sample, centres, seed + turn)
            reporter.advance(1)
    return _nearest(faiss, gallery, centres, listener)


def _sample(gallery: EmbeddingFile, wanted: int, draw: np.random.RandomState) -> NDArray[np.float32]:
    """(n, D) float32: rows drawn from all of the file, without rows of zeros."""
    chosen = np.zeros(gallery.rows, bool)
    chosen[draw.permutation(gallery.rows)[:wanted]] = True
    parts, start = [], 0
    for block in gallery.blocks():
        rows = block[chosen[start : start + len(block)]]
        parts.append(rows[rows.any(axis=1)])
        start += len(block)
    return np.concatenate(parts)


def _improve(faiss: Any, sample: NDArray[np.float32], centres: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """One round of k-means. A centre that nobody is near is moved to where many are."""
    k, dimension = centres.shape
    one = faiss.Kmeans(
        dimension, k, niter=1, spherical=True, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(sample)
    )
    one.train(sample, init_centroids=centres)
    found: NDArray[np.float32] = one.centroids
    return found


def _nearest(
    faiss: Any, gallery: EmbeddingFile, centres: NDArray[np.float32], listener: Listener | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    index = faiss.IndexFlatIP(gallery.dimension)
    index.add(centres)
    labels, scores, start = np.empty(gallery.rows, np.int64), np.empty(gallery.rows, np.float32), 0
    for block in track(gallery.blocks(), "rows to centres", gallery.rows, listener=listener):
        found, nearest = index.search(block, 1)  # (n, 1) both
        stop = start + len(block)
        scores[start:stop] = found[:, 0]
        labels[start:stop] = np.where(block.any(axis=1), nearest[:, 0], -1)
        start = stop
    return labels, scores
