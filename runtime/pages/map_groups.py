"""What a point's colour says: the folder of its photograph, or a cluster of like faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..extras import require

_FOLDERS = range(2, 51)  # so many tell something as colours
_LEAST = 3  # faces of a cluster


@dataclass(frozen=True, slots=True)
class Groups:
    """n points in G groups, the largest first.

    Attributes:
        kind: "folder" or "cluster".
        of: (n,) int64, the group of each point; -1 for none.
        names: G names, as they are.
    """

    kind: str
    of: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(G,) int64, points of each group."""
        return np.bincount(self.of[self.of >= 0], minlength=len(self.names))


def group(color: str, paths: Sequence[str], vectors: NDArray[np.float32]) -> Groups:
    """Group as `color` says.

    Args:
        color: "folder", "cluster", or "auto": by folder where there are 2 to 50, else by cluster.
        paths: n entries of `/image_paths`.
        vectors: (n, D) float32, unit rows.
    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    if color != "cluster":
        folders = by_folder(paths)
        if color == "folder" or len(folders.names) in _FOLDERS:
            return folders
    return by_cluster(vectors)


def by_folder(paths: Sequence[str]) -> Groups:
    """By the sub-folder that a photograph lies in or below, as `facemill evaluate` knows people; -1: in none.

    Args:
        paths: n paths below the root.
    """
    folders = [path.split("/")[0] if "/" in path else None for path in paths]
    numbers = {name: i for i, name in enumerate(sorted({folder for folder in folders if folder is not None}))}
    labels = np.array([-1 if folder is None else numbers[folder] for folder in folders], np.int64)
    return _largest_first("folder", labels, tuple(numbers))


def by_cluster(vectors: NDArray[np.float32]) -> Groups:
    """Faces that are closer to each other than to the rest, three or more; -1: like no others.

    Args:
        vectors: (n, D) float32, unit rows, n at least 3.
    Raises:
        MissingDependencyError: scikit-learn is not installed.
    Source: HDBSCAN, Campello, Moulavi and Sander (2013). On unit rows the distance says what the cosine says.
    """
    cluster = require("sklearn.cluster", extra="map", purpose="clusters")
    # min_samples 1: people have few photographs, and a face with one close neighbour is not alone.
    hdbscan = cluster.HDBSCAN(min_cluster_size=_LEAST, min_samples=1, copy=False)
    labels = np.asarray(hdbscan.fit_predict(vectors), np.int64)
    clusters = _largest_first("cluster", labels, ("",) * int(labels.max() + 1))
    return Groups("cluster", clusters.of, tuple(f"cluster {i + 1}" for i in range(len(clusters.names))))


def _largest_first(kind: str, labels: NDArray[np.int64], names: tuple[str, ...]) -> Groups:
    """Number the groups by size; among equals the order stays."""
    order = np.argsort(-np.bincount(labels[labels >= 0], minlength=len(names)), kind="stable")
    new = np.append(np.argsort(order), -1)  # the last one is for label -1
    return Groups(kind, new[labels], tuple(names[i] for i in order))
