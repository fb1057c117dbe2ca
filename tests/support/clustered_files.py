"""Write embedding files of known people with runtime/storage, without a network: each person has one direction."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.pairs.all_pairs import ScoredPairs
from runtime.records import FACE, Embedded
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter
from tests.support import encoded_images as make

EVIL = b'<img src=x onerror="alert(1)">&\x1b[31m\xe2\x80\xae,"quoted"\nline\xff.jpg'


def people_rows(sizes: Sequence[int], *, dimension: int = 64, noise: float = 0.6, seed: int = 0) -> NDArray[np.float32]:
    """(N, D) float32 unit rows, grouped by person. The expected score within a person is 1 / (1 + noise**2)."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((len(sizes), dimension)))
    rows = np.repeat(centres, sizes, axis=0)
    return _unit(rows + noise * rng.standard_normal(rows.shape) / np.sqrt(dimension)).astype(np.float32)


def person_of_rows(sizes: Sequence[int]) -> NDArray[np.int64]:
    """(N,) int64, the person of each row of `people_rows`."""
    return np.repeat(np.arange(len(sizes)), sizes)


def write_file(
    path: Path,
    vectors: NDArray[np.float32],
    names: Sequence[bytes] | None = None,
    ranks: Sequence[int] | None = None,
) -> Path:
    """Write an embedding file whose photos belong in the folder `photos` next to it: 0000.jpg ..., or `names`.

    With `ranks`, the file has faces: of each photo, the face of that rank.
    """
    names = names or [b"%04d.jpg" % i for i in range(len(vectors))]
    dimension = vectors.shape[1]
    folder = path.with_name(path.name + ".making")
    folder.mkdir()
    rules = SegmentRules()
    has_faces = ranks is not None
    writer = SegmentWriter(
        folder, plan_id="p", dimension=dimension, dtype="float32", digests=False, faces=has_faces, rules=rules
    )
    if len(vectors):
        faces, counts = _faces(ranks) if ranks is not None else (None, {})
        writer.append(Embedded(np.arange(len(vectors)), embeddings=vectors, faces=faces, face_counts=counts))
    writer.commit()
    contract = {"root": str(path.parent / "photos"), "dimension": dimension, "model": "planted", "precision": "fp32"}
    contract |= {"dtype": "float32"}
    metadata = {**contract, "scanned": len(vectors)}
    metadata |= {"contract": json.dumps(contract), "count_embedded": len(vectors), "trained": True}
    with Ledger(len(vectors), folder, "p") as ledger:
        assemble(path, ledger, names, metadata, "float32")
    shutil.rmtree(folder)
    return path


def _faces(ranks: Sequence[int]) -> tuple[NDArray[np.void], dict[int, int]]:
    """Make a face for each photo, and the number of faces of each."""
    faces = np.zeros(len(ranks), FACE)
    faces["face_index"] = ranks
    faces["box"] = (5, 5, 35, 40)
    return faces, {row: rank + 1 for row, rank in enumerate(ranks)}


def write_photos(path: Path, names: Sequence[bytes]) -> None:
    """Write different JPEGs at the paths of an embedding file's photos."""
    root = os.fsencode(path.parent / "photos")
    for i, name in enumerate(names):
        target = os.path.join(root, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(make.encode(make.scene(48, 40, seed=i), quality=60))


def links_by_numpy(vectors: NDArray[np.float32], threshold: float) -> ScoredPairs:
    """Find all pairs at or above a threshold with NumPy in double precision."""
    scores = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    first, second = np.nonzero(np.triu(scores >= np.float32(threshold), 1))
    return ScoredPairs(first, second, scores[first, second])


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
