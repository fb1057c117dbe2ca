"""Embedding files with duplicate people, and all their pairs by NumPy in double precision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from runtime.metrics.curve import count_scores, curve_of_counts
from runtime.metrics.falsematch import Calibration, calibrate
from runtime.records import FACE, FACE_DATASETS
from runtime.storage.calibration import ATTRIBUTE

Pair = tuple[int, int, float]


def rows_with_duplicates(rows: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """(rows, dimension) unit rows; every tenth is similar to another, five are equal, three are zeros."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dimension))
    late = rng.permutation(rows)[: rows // 10]
    noise = rng.uniform(0, 0.6, (len(late), 1)) * rng.standard_normal((len(late), dimension))
    vectors[late] = vectors[rng.integers(0, rows, len(late))] + noise
    vectors[late[:5]] = vectors[late[5]]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.permutation(rows)[:3]] = 0
    return vectors.astype(np.float32)


def write_rows(
    path: Path,
    vectors: NDArray[np.floating],
    *,
    names: Sequence[bytes] | None = None,
    counts: Sequence[int] | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write the parts of an embedding file that the search for pairs reads.

    Args:
        path: path of the file.
        vectors: (N, D), in the dtype to store.
        names: names of the rows.
        counts: rows of each photo, with faces; None for one row per photo, without faces.
        calibration: calibration to store.
    """
    names = names or [b"p%d.jpg" % row for row in range(len(vectors))]
    contract = {"root": "/photos", "dimension": vectors.shape[1]}
    with h5py.File(path, "w") as file:
        chunks = (max(1, min(64, len(vectors))), vectors.shape[1])
        file.create_dataset(
            "embeddings", data=vectors, maxshape=(None, vectors.shape[1]), chunks=chunks, fletcher32=True
        )
        file["image_paths"] = np.array(names, f"S{max(map(len, names), default=1)}")
        metadata = {"format_version": 1, "run_id": "r", "dimension": vectors.shape[1], "contract": json.dumps(contract)}
        if calibration is not None:
            metadata[ATTRIBUTE] = calibration.to_json()
        file.create_group("metadata").attrs.update(metadata)
        if counts is not None:
            file["outcomes/embeddings"] = np.array(counts, np.uint16)
            file[FACE_DATASETS["face_index"]] = np.concatenate([np.arange(n, dtype=np.uint16) for n in counts])
            for name, dataset in FACE_DATASETS.items():
                if name != "face_index":
                    file[dataset] = np.zeros((len(vectors), *FACE[name].shape), np.float32)
    return path


def calibration_of(impostors: NDArray[np.floating]) -> Calibration:
    """Make a calibration from these scores of two people."""
    curve = curve_of_counts(count_scores(np.ones(1, np.float32)), count_scores(impostors.astype(np.float32)))
    origin = {
        "contract": {},
        "folder": "people",
        "photographs": 9,
        "people": 5,
        "made_utc": "2030",
        "tool_version": "1",
    }
    return calibrate(curve, **origin)


def scores_by_numpy(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, N) float32: all scores in double precision, rounded once."""
    wide = vectors.astype(np.float64)
    return np.stack([(wide * row).sum(axis=1) for row in wide]).astype(np.float32)


def pairs_by_numpy(vectors: NDArray[np.floating], threshold: float) -> list[Pair]:
    """All pairs: higher score first, then lower rows first; rows of zeros have no pairs."""
    scores = scores_by_numpy(vectors)
    nonzero = vectors.any(axis=1)
    first, second = np.nonzero(np.triu(scores >= np.float32(threshold), 1) & nonzero & nonzero[:, None])
    pairs = zip(first.tolist(), second.tolist(), scores[first, second].tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))
