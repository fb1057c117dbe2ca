"""Project embeddings to two dimensions: PCA, then t-SNE. The same rows and seed give the same map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..extras import require

MIN_ROWS = 3  # t-SNE needs three points
_COMPONENTS = 50  # of the PCA, as the authors of t-SNE use (van der Maaten and Hinton, 2008)
_PERPLEXITY = 30.0  # about the number of neighbours that a point keeps close
_SPREAD = 1e-4  # standard deviation of the first layout, as in scikit-learn


def sample_rows(rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Choose the rows to show: all, or one from each of `limit` equal ranges, so that no part of the file is left out.

    Args:
        rows: number of rows of the file.
        limit: most rows to choose.
        seed: random seed.
    Returns:
        (n,) int64, ascending.
    """
    if rows <= limit:
        return np.arange(rows, dtype=np.int64)
    edges = np.arange(limit + 1, dtype=np.int64) * rows // limit  # (limit + 1,), every range has a row or more
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def project(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Find positions on a map that keep the neighbours of the embeddings.

    Args:
        vectors: (n, D) float32, n at least `MIN_ROWS`.
        seed: random seed of the noise that separates equal embeddings.
    Returns:
        (n, 2) float32.
    Raises:
        MissingDependencyError: scikit-learn is not installed.
    Source: van der Maaten (2014), Accelerating t-SNE using tree-based algorithms. The start from the PCA is by Kobak
        and Berens (2019); it keeps more of the arrangement of the groups than a random start.
    """
    decomposition = require("sklearn.decomposition", extra="map", purpose="PCA")
    manifold = require("sklearn.manifold", extra="map", purpose="t-SNE")
    # One thread adds its sums in a fixed order, so the map is reproducible. Many threads are hardly faster, and much
    # slower when they share their cores with another process.
    with require("threadpoolctl", extra="map").threadpool_limits(1), np.errstate(invalid="ignore"):
        components = min(_COMPONENTS, *vectors.shape)
        pca = decomposition.PCA(
            components, svd_solver="covariance_eigh"
        )  # divides 0 by a variance of 0 if all rows are equal
        reduced = pca.fit_transform(vectors)  # (n, C)
        tsne = manifold.TSNE(
            perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
            init=_first_layout(reduced, seed),
            random_state=seed,
        )
        return np.asarray(tsne.fit_transform(reduced), np.float32)


def _first_layout(reduced: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Scale down the first two components, with noise to separate equal points: (n, 2) float32."""
    spread = float(reduced[:, 0].std()) or 1.0
    noise = np.random.default_rng(seed).standard_normal((len(reduced), 2))
    return np.asarray(_SPREAD * (reduced[:, :2] / spread + 0.01 * noise), np.float32)
