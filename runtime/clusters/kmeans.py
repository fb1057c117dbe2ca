"""Split rows among a known number of people: spherical k-means (FAISS), trained on a sample."""

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
_SAMPLE_PER_CENTRE = 256  # rows per centre; more do not improve it
_MAX_SAMPLE_BYTES = 1 << 30

logger = logging.getLogger(__name__)


def split_by_kmeans(
    embeddings: EmbeddingFile,
    k: int,
    *,
    seed: int = 0,
    mask: NDArray[np.bool_] | None = None,
    listener: Listener | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Assign each row to the nearest of k centres.

    The sample is drawn evenly from the file and takes at most 1 GiB. The first centres are rows of it. A row of zeros
    belongs to no centre.

    Args:
        embeddings: an open embedding file.
        k: number of centres.
        seed: random seed of the sample and the first centres, 0 <= seed < 2**31. The same file, k and seed give the
            same result on the same machine.
        mask: (N,) bool, the rows to split; None for all.
        listener: shows the progress; None logs a line every five seconds.
    Returns:
        (N,) int64, the centre of each row, -1 for a row of zeros or outside of the mask; and (N,) float32,
        its score with that centre.
    Raises:
        ConfigError: k is larger than the number of rows that are not zero, or too large for the sample.
        MissingDependencyError: FAISS is not installed.
        StorageError: the file is damaged.
    """
    max_sample_rows = max(1, _MAX_SAMPLE_BYTES // (4 * embeddings.dimension))
    mask = np.ones(embeddings.rows, np.bool_) if mask is None else mask
    rows = int(mask.sum())
    if not 1 <= k <= rows:
        raise ConfigError(
            f"-k is {k:,}, but {embeddings.path} has {rows:,} embeddings to split; expected: 1 to "
            f"{rows:,}. Lower -k, or use --threshold if the number of people is unknown"
        )
    if k > max_sample_rows:
        raise ConfigError(
            f"-k is {k:,}; expected: at most {max_sample_rows:,}, the number of embeddings of {embeddings.dimension} "
            f"numbers that k-means trains on. For more people use --threshold"
        )
    faiss = require("faiss", extra="cpu", purpose="k-means")
    random = np.random.RandomState(seed)  # its stream never changes between NumPy versions
    sample = _sample(embeddings, mask, min(rows, max_sample_rows, k * _SAMPLE_PER_CENTRE), random)
    if len(sample) < k:
        raise ConfigError(
            f"-k is {k:,}, but only {len(sample):,} embeddings in {embeddings.path} are not zero; expected: at most "
            f"{len(sample):,}. Lower -k"
        )
    centres = sample[np.sort(random.choice(len(sample), k, replace=False))]  # (k, D)
    with Reporter("k-means", _ROUNDS, unit="rounds", listener=listener) as reporter:
        for number in range(_ROUNDS):
            centres = _improve(faiss, sample, centres, seed + number)
            reporter.advance(1)
    return _nearest(faiss, embeddings, mask, centres, listener)


def _sample(
    embeddings: EmbeddingFile, mask: NDArray[np.bool_], count: int, random: np.random.RandomState
) -> NDArray[np.float32]:
    """Draw up to `count` rows from the whole file, without rows of zeros: (n, D) float32."""
    chosen = np.zeros(embeddings.rows, bool)
    allowed = np.flatnonzero(mask)
    chosen[allowed[random.permutation(len(allowed))[:count]]] = True
    parts, start = [], 0
    for block in embeddings.blocks():
        rows = block[chosen[start : start + len(block)]]
        parts.append(rows[rows.any(axis=1)])
        start += len(block)
    return np.concatenate(parts)


def _improve(faiss: Any, sample: NDArray[np.float32], centres: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Run one round of k-means. FAISS moves a centre without rows next to one with many."""
    k, dimension = centres.shape
    kmeans = faiss.Kmeans(
        dimension, k, niter=1, spherical=True, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(sample)
    )
    kmeans.train(sample, init_centroids=centres)
    improved: NDArray[np.float32] = kmeans.centroids
    return improved


def _nearest(
    faiss: Any,
    embeddings: EmbeddingFile,
    mask: NDArray[np.bool_],
    centres: NDArray[np.float32],
    listener: Listener | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    index = faiss.IndexFlatIP(embeddings.dimension)
    index.add(centres)
    labels, scores, start = np.empty(embeddings.rows, np.int64), np.empty(embeddings.rows, np.float32), 0
    for block in track(embeddings.blocks(), "rows to centres", embeddings.rows, listener=listener):
        products, nearest = index.search(block, 1)  # (n, 1) both
        stop = start + len(block)
        scores[start:stop] = products[:, 0]
        labels[start:stop] = np.where(block.any(axis=1) & mask[start:stop], nearest[:, 0], -1)
        start = stop
    return labels, scores
