"""Write embedding files to export with runtime/storage: with difficult names, several faces and clusters."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from runtime.records import Embedded, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter
from tests.support.face_batches import faces_of

ODD = [
    b'<a href="x">&.jpg',
    b"two\nlines\r.jpg",
    b"caf\xe9/raw\xff.jpg",
    "\u00e9\u4eba\u202e.jpg".encode(),
    b"'; drop--.jpg",
]


def unit_rows(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, dimension) float32 unit rows."""
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def contract_of(dimension: int, root: bytes, sha256: str = "ab" * 32) -> dict[str, object]:
    text = root.decode("utf-8", "surrogateescape")
    return {"root": text, "model": "net", "model_sha256": sha256, "dimension": dimension, "precision": "fp32"}


def write_file(
    path: Path,
    count: int = 60,
    dimension: int = 16,
    *,
    dtype: str = "float32",
    faces: bool = False,
    cluster: bool = False,
    seed: int = 0,
    root: bytes = b"/photos/\xfe",
    sha256: str = "ab" * 32,
    skip: int = 0,
) -> tuple[Path, NDArray[np.float32], list[bytes]]:
    """Write a finished file.

    Args:
        count: number of embeddings; with faces, two per photo.
        skip: number of first photos to leave out, as if they had been removed.
    Returns:
        The file's path, the expected `/embeddings` (rounded to dtype), and the exact path of each row below the root.
    """
    faces_per_photo = 2 if faces else 1
    photo_count = count // faces_per_photo
    names = [*ODD, *(b"p/%06d.jpg" % i for i in range(photo_count))][:photo_count]
    vectors = unit_rows(count, dimension, seed)[skip * faces_per_photo :]
    names = names[skip:]
    rows = np.repeat(np.arange(1, len(names) + 1), faces_per_photo)  # the first photo of the scan is damaged
    folder = path.with_name(path.name + ".segments")
    folder.mkdir()
    face_rows = faces_of(np.random.default_rng(seed), [0, 2] * photo_count)[skip * faces_per_photo :] if faces else None
    counts = dict.fromkeys(range(1, len(names) + 1), 3) if faces else {}
    writer = SegmentWriter(
        folder,
        plan_id="p",
        dimension=dimension,
        dtype=dtype,
        digests=False,
        faces=faces,
        rules=SegmentRules(10**6, 1e9),
    )
    damaged = Outcome(0, Status.CORRUPT, "cut short")
    writer.append(Embedded(rows, (damaged,), embeddings=vectors, faces=face_rows, face_counts=counts))
    writer.commit()
    contract = contract_of(dimension, root, sha256)
    metadata = {**contract, "root": root.decode("utf-8", "backslashreplace"), "contract": json.dumps(contract)}
    with Ledger(len(names) + 1, folder, "p") as ledger:
        assemble(path, ledger, [b"damaged.jpg", *names], metadata, dtype)
    if cluster:
        with h5py.File(path, "r+") as file:
            file["cluster"] = np.arange(len(vectors), dtype=np.int32) // 3
    return path, vectors.astype(dtype), [name for name in names for _ in range(faces_per_photo)]
