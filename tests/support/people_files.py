"""Small folders of people with unusual names, and their embedding files, for tests that change finished files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.facemill_command import facemill

ODD = (b"quo\"te'.jpg", b"<b>&amp;.jpg", b"line\nbreak.jpg", b"caf\xe9.jpg", b"back\\slash.jpg", "grüße.jpg".encode())


def make_people(folder: Path, people: range, photographs: int = 4) -> None:
    """Write folders P00, P01 ... of small photos, all different."""
    for person in people:
        person_folder = folder / f"P{person:02d}"
        person_folder.mkdir(parents=True)
        for i in range(photographs):
            scene = make.scene(112, 112, seed=100 * person + i)
            (person_folder / f"{i}.jpg").write_bytes(make.encode(scene, quality=70))


def make_odd_people(folder: Path) -> None:
    """Write people: one has unusual file names, another has two copies of a photo of P00 and a damaged photo."""
    make_people(folder, range(6))
    odd = os.fsencode(folder / "odd \xe9".encode().decode())
    os.mkdir(odd)
    for i, name in enumerate(ODD):
        with open(os.path.join(odd, name), "wb") as file:
            file.write(make.encode(make.scene(112, 112, seed=9000 + i), quality=70))
    (folder / "P09").mkdir()
    for name in ("0.jpg", "1.jpg"):
        shutil.copy(folder / "P00" / "0.jpg", folder / "P09" / name)
    (folder / "P09" / "2.jpg").write_bytes((folder / "P01" / "0.jpg").read_bytes()[:300])


def embed_folder(folder: Path, output: Path, engine: Path, *options: object) -> Path:
    result = facemill("process", folder, "-o", output, "--engine", engine, *options)
    assert result.returncode == 0, result.stderr
    return output


def paths_in(file: Path) -> list[bytes]:
    with EmbeddingFile(file) as embeddings:
        return list(embeddings.scanned_paths())


def vectors_of(file: Path, path: str) -> NDArray[np.float32]:
    """Read the embeddings of a photo, or of a folder whose path ends in a slash."""
    with h5py.File(file) as embeddings:
        names = embeddings["image_paths"].asstr()[:]
        selected = [name == path or (path.endswith("/") and name.startswith(path)) for name in names]
        vectors: NDArray[np.float32] = embeddings["embeddings"][:][np.array(selected, bool)]
    return vectors


def files_that_hold(folder: Path, *patterns: bytes) -> list[str]:
    """Find the files below a folder whose raw bytes contain one of the patterns."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(str(path) for path in files if any(pattern in path.read_bytes() for pattern in patterns))
