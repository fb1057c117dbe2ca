"""`<file>.faiss`: the vectors in the form that FAISS maps into memory, and a sidecar that says what it was made from.

It is derived data: whatever is wrong with it, it is made again. FAISS reads it only after size, origin and content
are known to be right, since it does not survive every damaged file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import StorageError
from ..extras import require
from ..fetch import sha256_of
from .gallery import Gallery

SIDECAR_FORMAT = 1

logger = logging.getLogger(__name__)


def index_path(gallery: Path) -> Path:
    """`people.h5` -> `people.h5.faiss`."""
    return gallery.with_name(gallery.name + ".faiss")


def sidecar_path(index: Path) -> Path:
    """`people.h5.faiss` -> `people.h5.faiss.json`."""
    return index.with_name(index.name + ".json")


def ensure_index(gallery: Gallery) -> Path | None:
    """The index file of a gallery with at least one row, made when there is none that is right.

    Returns:
        Its path; None when it cannot be kept beside the gallery (a warning says why).
    Raises:
        StorageError: the gallery is damaged.
    """
    path = index_path(gallery.path)
    if not _flaw(path, gallery):
        return path
    try:
        partial = path.with_name(path.name + ".partial")
        with _one_builder(partial) as file:
            flaw = _flaw(path, gallery)  # again: another search may have made it while this one waited
            if flaw:
                logger.info("making the index %s: %s", path, flaw)
                sha256 = _fill(file, gallery)
                os.replace(partial, path)
                _write_sidecar(path, gallery, sha256)
        return path
    except StorageError:
        raise
    except OSError as err:
        logger.warning(
            "the index cannot be kept beside the file (%s): it is made in memory, at every search anew. "
            "Make the folder %s writable, with room for the index, to keep it",
            err.strerror or err,
            path.parent,
        )
        return None


def _flaw(path: Path, gallery: Gallery) -> str:
    """Why an index file is not to be used; empty when it is right."""
    try:
        card = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
        if card["format"] != SIDECAR_FORMAT or card["source"] != gallery.source:
            return "the embedding file is another one than the index was made from"
        mark, header = _mark(path), _header(gallery)
        with path.open("rb") as file:
            begins = file.read(len(header))
        if begins != header or mark["size_bytes"] != len(header) + 4 * gallery.rows * gallery.dimension:
            return f"it is cut short or another kind of file ({mark['size_bytes']} bytes)"
        if mark == card["mark"] or sha256_of(path) == card["sha256"]:
            return ""
        return "its content has changed"
    except FileNotFoundError:
        return "there is none yet"
    except (OSError, KeyError, TypeError, ValueError) as err:
        return f"its sidecar cannot be used ({type(err).__name__}: {err})"


def _mark(path: Path) -> dict[str, int]:
    """Changes whenever a file is written to: the time of its last change cannot be set back."""
    stat = os.stat(path)
    return {"inode": stat.st_ino, "size_bytes": stat.st_size, "ctime_ns": stat.st_ctime_ns}


def _faiss() -> Any:
    return require("faiss", extra="cpu", purpose="searching")


def _header(gallery: Gallery) -> bytes:
    """What FAISS itself writes before the vectors of such an index."""
    faiss = _faiss()
    one = faiss.IndexFlatIP(gallery.dimension)
    one.add(np.zeros((1, gallery.dimension), np.float32))
    form: bytes = faiss.serialize_index(one).tobytes()[: -4 * gallery.dimension]
    if form[8:16] != struct.pack("<q", 1) or form[-8:] != struct.pack("<Q", gallery.dimension):
        raise OSError(f"FAISS {faiss.__version__} writes index files of an unknown form")
    return (
        form[:8] + struct.pack("<q", gallery.rows) + form[16:-8] + struct.pack("<Q", gallery.rows * gallery.dimension)
    )


def _fill(file: IO[bytes], gallery: Gallery) -> str:
    """Write the whole index, durably, in the memory of one block; returns its sha256."""
    digest = hashlib.sha256()

    def put(piece: Any) -> None:
        file.write(piece)
        digest.update(piece)

    file.truncate(0)  # what a killed search left
    put(_header(gallery))
    for block in gallery.blocks():
        put(block)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def _write_sidecar(path: Path, gallery: Gallery, sha256: str) -> None:
    # Clocks of file systems tick every few milliseconds: a later write must get a later time than the mark's.
    time.sleep(0.02)
    card = {
        "format": SIDECAR_FORMAT,
        "source": gallery.source,
        "rows": gallery.rows,
        "dimension": gallery.dimension,
        "metric": "inner product",
        "faiss": _faiss().__version__,
        "sha256": sha256,
        "mark": _mark(path),
    }
    _replace(sidecar_path(path), json.dumps(card, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextmanager
def _one_builder(partial: Path) -> Iterator[IO[bytes]]:
    """The partial file, locked: it is the lock of all searches that want to make the index at once.

    A killed search leaves it behind; the next one takes it over. It is gone at the end, renamed or not.
    """
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with open(fd, "r+b") as file:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not _is(fd, partial):  # it was renamed by the search that held the lock before
                continue
            try:
                yield file
            finally:
                if _is(fd, partial):
                    partial.unlink()
            return


def _is(fd: int, path: Path) -> bool:
    """Whether `path` names the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
