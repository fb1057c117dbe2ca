"""Small folders of people with names from outside, and embedding files of them, for what changes finished files."""

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
    """Folders P00, P01 ... of small photographs; each photograph of each person is another one."""
    for person in people:
        place = folder / f"P{person:02d}"
        place.mkdir(parents=True)
        for i in range(photographs):
            scene = make.scene(112, 112, seed=100 * person + i)
            (place / f"{i}.jpg").write_bytes(make.encode(scene, quality=70))


def make_odd_people(folder: Path) -> None:
    """People, one with odd names, one whose photographs are two duplicates of another's and a damaged one."""
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
    done = facemill("process", folder, "-o", output, "--engine", engine, *options)
    assert done.returncode == 0, done.stderr
    return output


def paths_in(file: Path) -> list[bytes]:
    with EmbeddingFile(file) as opened:
        return list(opened.scanned_paths())


def vectors_of(file: Path, path: str) -> NDArray[np.float32]:
    """The embeddings of a photograph, or of a folder with its slash."""
    with h5py.File(file) as opened:
        names = opened["image_paths"].asstr()[:]
        here = [name == path or (path.endswith("/") and name.startswith(path)) for name in names]
        found: NDArray[np.float32] = opened["embeddings"][:][np.array(here, bool)]
    return found


def files_that_hold(folder: Path, *needles: bytes) -> list[str]:
    """Files below a folder whose raw bytes hold one of some sequences."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(str(path) for path in files if any(needle in path.read_bytes() for needle in needles))
