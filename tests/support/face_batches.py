"""Photographs with any number of faces, as detection and an engine would hand them on: the same whenever asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.records import FACE, Embedded, Outcome, Status
from runtime.storage.segments import SegmentRules, SegmentWriter

D = 8
WITHOUT_ROWS = (Status.NO_FACE, Status.MULTIPLE_FACES, Status.LOW_QUALITY, Status.CORRUPT)


def faces_of(rng: np.random.Generator, ranks: Sequence[int]) -> NDArray[np.void]:
    """(n,) FACE, whose numbers mean nothing."""
    faces = np.zeros(len(ranks), FACE)
    for name in FACE.names or ():
        faces[name] = rng.uniform(0, 1000, faces[name].shape)
    faces["face_index"] = ranks
    return faces


def batch_of(rows: Sequence[int], seed: int, spoilt: frozenset[int] = frozenset()) -> Embedded:
    """What became of some scan rows: 0 to 5 faces each, all or some of them good enough for an embedding.

    Args:
        rows: ascending.
        seed: of the collection; what a row is depends on nothing else.
        spoilt: rows that cannot be read this time.
    """
    entries: list[int] = []
    faces, vectors, outcomes, counts = [faces_of(np.random.default_rng(0), [])], [np.empty((0, D))], [], {}
    for row in rows:
        rng = np.random.default_rng((seed, row))
        counts[row] = int(rng.integers(0, 6))
        ranks = np.flatnonzero(rng.random(counts[row]) < 0.8).tolist()  # of the others, quality is too low
        if row in spoilt:
            del counts[row]
            outcomes.append(Outcome(row, Status.UNREADABLE, "not today"))
        elif ranks:
            entries += [row] * len(ranks)
            faces.append(faces_of(rng, ranks))
            vectors.append(rng.standard_normal((len(ranks), D)))
        else:
            outcomes.append(Outcome(row, WITHOUT_ROWS[row % 4], f"{counts[row]} faces in {row}"))
    return Embedded(
        np.array(entries, np.int64),
        tuple(outcomes),
        embeddings=np.concatenate(vectors).astype(np.float32),
        faces=np.concatenate(faces),
        face_counts=counts,
    )


def batches_of(rows: Sequence[int], size: int, seed: int, spoilt: frozenset[int] = frozenset()) -> Iterator[Embedded]:
    """`batch_of` for runs of `size` photographs."""
    for start in range(0, len(rows), size):
        yield batch_of(rows[start : start + size], seed, spoilt)


def segment_writer(folder: Path, rows: int = 10, *, faces: bool = True) -> SegmentWriter:
    """Of segments that end after so many photographs."""
    rules = SegmentRules(rows, 1e9)
    return SegmentWriter(folder, plan_id="p", dimension=D, dtype="float32", digests=False, faces=faces, rules=rules)
