"""Change clusters so that they obey decisions: faces of one person get into one cluster, and others into two.

The clusters count as the oldest decision: they hold as far as no person decided otherwise. Where a cluster must be
split, rows that no decision is about stay with those that they are most similar to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .constraints import Groups
from .rows import RowRules

_ROUNDS = 10  # in which rows may change sides

Vectors = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def obey(labels: NDArray[np.int64], rules: RowRules, vectors_at: Vectors) -> NDArray[np.int64]:
    """Return labels of clusters that obey the rules.

    Args:
        labels: (N,) int64, equal for rows of one cluster; below 0 for rows in no cluster, which stay so.
        rules: decisions about rows of the same file.
        vectors_at: reads the embeddings of (n,) rows: (n, D) float32. Called only for clusters that must be split.
    Returns:
        (N,) int64, a new array. Rows of which the rules say "same" have one label, and rows of which they say
        "different" have two. The same arguments give the same result.
    """
    obeyed: NDArray[np.int64] = labels.copy()
    rows = rules.rows[labels[rules.rows] >= 0]
    if not len(rows):
        return obeyed
    members = np.flatnonzero(np.isin(labels, labels[rows]))
    order = members[np.argsort(labels[members], kind="stable")]  # by cluster, then by row
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    groups = rules.constraints.copy_groups()
    places: list[tuple[NDArray[np.int64], int]] = []  # rows, and a face of their group
    for cluster in np.split(order, ends):
        places += _split_cluster(cluster, rules.face_of, groups, vectors_at)
    new, numbers = int(labels.max()) + 1, dict[int, int]()
    for rows, face in places:  # after the last group is joined
        obeyed[rows] = new + numbers.setdefault(groups.find(face), len(numbers))
    return obeyed


def _split_cluster(
    cluster: NDArray[np.int64], face_of: dict[int, int], groups: Groups, vectors_at: Vectors
) -> list[tuple[NDArray[np.int64], int]]:
    """Join the faces of a cluster as far as decisions allow. Returns rows, each with a face of their group."""
    seeds: dict[int, list[int]] = {}  # rows of which something is demanded, by the face that stands for their group
    free = []
    for row in cluster.tolist():
        if row in face_of and not groups.is_free(face_of[row]):
            seeds.setdefault(groups.find(face_of[row]), []).append(row)
        else:
            free.append(row)
    if not seeds:
        return []
    faces = sorted(seeds, key=lambda face: (-len(seeds[face]), seeds[face][0]))
    if not groups.any_apart(faces):
        return [(cluster, groups.join_all(faces)[0][0])]
    vectors = dict(zip(cluster.tolist(), vectors_at(cluster).astype(np.float64), strict=True))
    parts: list[list[int]] = []  # rows
    heads: list[int] = []  # a face of each part
    sums: list[NDArray[np.float64]] = []  # of the vectors of each part, (D,)
    for face in faces:
        total = np.sum([vectors[row] for row in seeds[face]], axis=0)
        scores = [float(total @ other) / len(part) for other, part in zip(sums, parts, strict=True)]
        for place in sorted(range(len(parts)), key=lambda place: (-scores[place], place)):
            if groups.join(heads[place], face):
                parts[place] += seeds[face]
                sums[place] = sums[place] + total
                break
        else:
            parts.append(list(seeds[face]))
            heads.append(face)
            sums.append(total)
    if free:
        seed_sums, seed_counts = np.stack(sums), np.array(list(map(len, parts)))  # (p, D), (p,)
        for row, side in zip(
            free, _nearest(np.stack([vectors[row] for row in free]), seed_sums, seed_counts), strict=True
        ):
            parts[side].append(row)
    return [(np.array(sorted(part), np.int64), head) for part, head in zip(parts, heads, strict=True)]


def _nearest(vectors: NDArray[np.float64], seed_sums: NDArray[np.float64], seed_counts: NDArray[np.int64]) -> list[int]:
    """Assign rows to the side whose rows they are most similar to on average; seeds stay on their side.

    Args:
        vectors: (n, D) of the rows.
        seed_sums, seed_counts: (p, D) and (p,), of the seeds of each side.
    """
    sums, counts = seed_sums, seed_counts
    sides = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        nearest = np.argmax(vectors @ (sums / counts[:, None]).T, axis=1)
        if np.array_equal(nearest, sides):
            break
        sides, sums = nearest, seed_sums.copy()
        np.add.at(sums, sides, vectors)
        counts = seed_counts + np.bincount(sides, minlength=len(seed_counts))
    return [int(side) for side in sides]
