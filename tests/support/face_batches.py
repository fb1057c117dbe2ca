"""Make batches of photos with any number of faces, as detection and an engine produce them; deterministic."""

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
    """(n,) FACE with random values."""
    faces = np.zeros(len(ranks), FACE)
    for name in FACE.names or ():
        faces[name] = rng.uniform(0, 1000, faces[name].shape)
    faces["face_index"] = ranks
    return faces


def batch_of(rows: Sequence[int], seed: int, unreadable: frozenset[int] = frozenset()) -> Embedded:
    """Make the outcomes of scan rows: 0 to 5 faces each, all or some of them good enough to embed.

    Args:
        rows: scan rows, ascending.
        seed: random seed; the outcome of a row depends only on the seed and the row.
        unreadable: rows that are unreadable in this call.
    """
    entries: list[int] = []
    faces, vectors, outcomes, counts = [faces_of(np.random.default_rng(0), [])], [np.empty((0, D))], [], {}
    for row in rows:
        rng = np.random.default_rng((seed, row))
        counts[row] = int(rng.integers(0, 6))
        ranks = np.flatnonzero(rng.random(counts[row]) < 0.8).tolist()  # the other faces have too low a quality
        if row in unreadable:
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


def batches_of(
    rows: Sequence[int], size: int, seed: int, unreadable: frozenset[int] = frozenset()
) -> Iterator[Embedded]:
    """Make batches of `size` photos with `batch_of`."""
    for start in range(0, len(rows), size):
        yield batch_of(rows[start : start + size], seed, unreadable)


def segment_writer(folder: Path, rows: int = 10, *, faces: bool = True) -> SegmentWriter:
    """Open a writer whose segments end after `rows` photos."""
    rules = SegmentRules(rows, 1e9)
    return SegmentWriter(folder, plan_id="p", dimension=D, dtype="float32", digests=False, faces=faces, rules=rules)
