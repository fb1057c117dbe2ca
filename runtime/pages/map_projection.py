"""Many dimensions to two: PCA, then t-SNE. The same rows and seed give the same map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..extras import require

# Below three there is nothing to arrange.
LEAST = 3
_COMPONENTS = 50  # of the PCA: what t-SNE's authors use (van der Maaten and Hinton, 2008)
_PERPLEXITY = 30.0  # neighbours that a point keeps close, about
_SPREAD = 1e-4  # standard deviation of the first layout, as scikit-learn has it


def sample_rows(rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Rows to show: all, or one of each of `limit` equal stretches, so that no part of the file is left out.

    Args:
        rows: of the file.
        limit: at most so many.
        seed: of the draw.
    Returns:
        (n,) int64, ascending.
    """
    if rows <= limit:
        return np.arange(rows, dtype=np.int64)
    edges = np.arange(limit + 1, dtype=np.int64) * rows // limit  # (limit + 1,), every stretch has a row or more
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def project(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Places on a map on which the neighbours are those of the embeddings.

    Args:
        vectors: (n, D) float32, n at least `LEAST`.
        seed: of the little noise that parts equal embeddings.
    Returns:
        (n, 2) float32.
    Raises:
        MissingDependencyError: scikit-learn is not installed.
    Source: van der Maaten (2014), Accelerating t-SNE using tree-based algorithms; begun from the PCA after Kobak and
        Berens (2019), which keeps more of the arrangement of the groups than a random beginning.
    """
    decomposition = require("sklearn.decomposition", extra="map", purpose="PCA")
    manifold = require("sklearn.manifold", extra="map", purpose="t-SNE")
    # On one thread: its sums are added in one order, and so the map is the same again. Many threads are hardly faster,
    # and much slower where they share their cores with another process.
    with require("threadpoolctl", extra="map").threadpool_limits(1), np.errstate(invalid="ignore"):
        components = min(_COMPONENTS, *vectors.shape)
        pca = decomposition.PCA(components, svd_solver="covariance_eigh")  # if all are equal: 0 of a variance of 0
        reduced = pca.fit_transform(vectors)  # (n, C)
        tsne = manifold.TSNE(
            perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
            init=_first_layout(reduced, seed),
            random_state=seed,
        )
        return np.asarray(tsne.fit_transform(reduced), np.float32)


def _first_layout(reduced: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """(n, 2) float32: the first two components, small, with a little noise: equal points would never part."""
    spread = float(reduced[:, 0].std()) or 1.0
    noise = np.random.default_rng(seed).standard_normal((len(reduced), 2))
    return np.asarray(_SPREAD * (reduced[:, :2] / spread + 0.01 * noise), np.float32)
