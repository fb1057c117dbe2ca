"""`<file>.faiss`: the vectors in the format that FAISS maps into memory, with a sidecar that names their source.

The file is derived data: if anything is wrong with it, it is rebuilt. FAISS reads it only after its size, origin and
content were checked, because some damaged files crash FAISS.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import OutputExistsError, StorageError
from ..extras import require
from ..files import NewFile
from ..progress import track
from ..regular import open_regular
from ..storage.file import EmbeddingFile
from ..storage.nearby import IDENTITY
from .sidecar import amend_card, is_unchanged, mark_of, read_card, read_own_card, remove_foreign, write_card

SIDECAR_FORMAT = 1

logger = logging.getLogger(__name__)


def index_path(gallery: Path) -> Path:
    """`people.h5` -> `people.h5.faiss`: beside the file itself, under whatever link it is searched."""
    return Path(os.path.realpath(gallery) + ".faiss")


def ensure_index(gallery: EmbeddingFile) -> Path | None:
    """Find the index file of a gallery with at least one row. Build it if no valid one exists.

    Returns:
        Its path; None if it cannot be saved beside the gallery (a warning says why).
    Raises:
        StorageError: the gallery is damaged.
    """
    path = index_path(gallery.path)
    if not _find_flaw(path, gallery):
        return path
    try:
        remove_foreign(path, gallery.path)
        with NewFile(path, like=gallery.path, wait=True) as new:
            flaw = _find_flaw(path, gallery)  # again: another search may have built it while this one waited
            if flaw:
                logger.info("building the index %s: %s", path, flaw)
                sha256 = _fill(new.file, gallery)
                new.commit()
                write_card(path, _card(gallery, sha256))
        return path
    except OutputExistsError as err:
        reason = err.message  # a folder, or something else, has its name
    except StorageError:
        raise
    except OSError as err:
        reason = err.strerror or str(err)
    logger.warning(
        "the index cannot be saved beside the file (%s), so every search builds it again in memory. "
        "To save it, make the folder %s writable, with enough free space",
        reason,
        path.parent,
    )
    return None


@contextmanager
def faiss_name(path: Path) -> Iterator[str]:
    """A name of an existing file that FAISS can open: FAISS takes UTF-8 only, and a path may have any bytes.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        is_utf8 = str(path).encode() == os.fsencode(path)
    except UnicodeEncodeError:
        is_utf8 = False
    if is_utf8:
        yield str(path)
        return
    fd = open_regular(path)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def read_latency(path: Path) -> float | None:
    """The milliseconds that `save_latency` stored; None if it is missing or invalid."""
    try:
        latency_ms = read_card(path).get("exact_ms")
    except (OSError, ValueError, TypeError):
        return None
    return float(latency_ms) if isinstance(latency_ms, (int, float)) and latency_ms > 0 else None


def save_latency(path: Path, exact_ms: float) -> None:
    """Save the latency of exact search for one query with its index, if that is possible."""
    try:
        amend_card(path, exact_ms=exact_ms)
    except (OSError, ValueError, TypeError) as err:
        logger.debug("cannot save the latency of exact search beside %s: %s", path, err)


def _find_flaw(path: Path, gallery: EmbeddingFile) -> str:
    """Why an index file must not be used; empty if it is valid."""
    try:
        card = read_own_card(path, gallery.path)
        if card["format"] != SIDECAR_FORMAT or card["source"] != gallery.source:
            return "it was built from a different embedding file"
        size_bytes, header = mark_of(path)["size_bytes"], _header(gallery)
        with open(open_regular(path), "rb") as file:
            file_header = file.read(len(header))
        if file_header != header or size_bytes != len(header) + 4 * gallery.rows * gallery.dimension:
            return f"it is truncated or a different kind of file ({size_bytes} bytes)"
        return "" if is_unchanged(path, card) else "its content has changed"
    except FileNotFoundError:
        return "it does not exist yet"
    except (OSError, KeyError, TypeError, ValueError) as err:
        return f"its sidecar cannot be used ({type(err).__name__}: {err})"


def _faiss() -> Any:
    return require("faiss", extra="cpu", purpose="searching")


def _header(gallery: EmbeddingFile) -> bytes:
    """The header that FAISS writes before the vectors of a flat index."""
    faiss = _faiss()
    header = faiss.IndexFlatIP(gallery.dimension)
    header.add(np.zeros((1, gallery.dimension), np.float32))
    form: bytes = faiss.serialize_index(header).tobytes()[: -4 * gallery.dimension]
    if form[8:16] != struct.pack("<q", 1) or form[-8:] != struct.pack("<Q", gallery.dimension):
        raise OSError(f"FAISS {faiss.__version__} writes index files in an unknown format")
    return (
        form[:8] + struct.pack("<q", gallery.rows) + form[16:-8] + struct.pack("<Q", gallery.rows * gallery.dimension)
    )


def _fill(file: IO[bytes], gallery: EmbeddingFile) -> str:
    """Write the index, one block in memory at a time; return its sha256."""
    digest = hashlib.sha256()

    def put(piece: Any) -> None:
        file.write(piece)
        digest.update(piece)

    put(_header(gallery))
    for block in track(gallery.blocks(), "rows into the index", gallery.rows):
        put(block)
    return digest.hexdigest()


def _card(gallery: EmbeddingFile, sha256: str) -> dict[str, object]:
    return {
        "format": SIDECAR_FORMAT,
        "source": gallery.source,
        IDENTITY: gallery.metadata.get(IDENTITY, ""),
        "rows": gallery.rows,
        "dimension": gallery.dimension,
        "metric": "inner product",
        "faiss": _faiss().__version__,
        "sha256": sha256,
    }
