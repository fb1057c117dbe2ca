"""`<file>.faiss`: the vectors in the form that FAISS maps into memory, and a sidecar that says what it was made from.

It is derived data: whatever is wrong with it, it is made again. FAISS reads it only after size, origin and content
are known to be right, since it does not survive every damaged file.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import StorageError
from ..extras import require
from ..files import NewFile
from ..progress import track
from ..storage.file import EmbeddingFile
from .beside import amend_card, is_unchanged, mark_of, read_card, write_card

SIDECAR_FORMAT = 1

logger = logging.getLogger(__name__)


def index_path(gallery: Path) -> Path:
    """`people.h5` -> `people.h5.faiss`."""
    return gallery.with_name(gallery.name + ".faiss")


def ensure_index(gallery: EmbeddingFile) -> Path | None:
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
        with NewFile(path, like=gallery.path, wait=True) as new:
            flaw = _flaw(path, gallery)  # again: another search may have made it while this one waited
            if flaw:
                logger.info("making the index %s: %s", path, flaw)
                sha256 = _fill(new.file, gallery)
                new.commit()
                write_card(path, _card(gallery, sha256))
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


def known_latency(path: Path) -> float | None:
    """What `keep_latency` has noted; None where nothing was, or nothing that makes sense."""
    try:
        latency_ms = read_card(path).get("exact_ms")
    except (OSError, ValueError, TypeError):
        return None
    return float(latency_ms) if isinstance(latency_ms, (int, float)) and latency_ms > 0 else None


def keep_latency(path: Path, exact_ms: float) -> None:
    """Note with an index how long exact search takes for one query; that it cannot be noted is no error."""
    try:
        amend_card(path, exact_ms=exact_ms)
    except (OSError, ValueError, TypeError) as err:
        logger.debug("the time of exact search is not kept beside %s: %s", path, err)


def _flaw(path: Path, gallery: EmbeddingFile) -> str:
    """Why an index file is not to be used; empty when it is right."""
    try:
        card = read_card(path)
        if card["format"] != SIDECAR_FORMAT or card["source"] != gallery.source:
            return "the embedding file is another one than the index was made from"
        size_bytes, header = mark_of(path)["size_bytes"], _header(gallery)
        with path.open("rb") as file:
            begins = file.read(len(header))
        if begins != header or size_bytes != len(header) + 4 * gallery.rows * gallery.dimension:
            return f"it is cut short or another kind of file ({size_bytes} bytes)"
        return "" if is_unchanged(path, card) else "its content has changed"
    except FileNotFoundError:
        return "there is none yet"
    except (OSError, KeyError, TypeError, ValueError) as err:
        return f"its sidecar cannot be used ({type(err).__name__}: {err})"


def _faiss() -> Any:
    return require("faiss", extra="cpu", purpose="searching")


def _header(gallery: EmbeddingFile) -> bytes:
    """What FAISS itself writes before the vectors of such an index."""
    faiss = _faiss()
    header = faiss.IndexFlatIP(gallery.dimension)
    header.add(np.zeros((1, gallery.dimension), np.float32))
    form: bytes = faiss.serialize_index(header).tobytes()[: -4 * gallery.dimension]
    if form[8:16] != struct.pack("<q", 1) or form[-8:] != struct.pack("<Q", gallery.dimension):
        raise OSError(f"FAISS {faiss.__version__} writes index files of an unknown form")
    return (
        form[:8] + struct.pack("<q", gallery.rows) + form[16:-8] + struct.pack("<Q", gallery.rows * gallery.dimension)
    )


def _fill(file: IO[bytes], gallery: EmbeddingFile) -> str:
    """Write the whole index, in the memory of one block; returns its sha256."""
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
        "rows": gallery.rows,
        "dimension": gallery.dimension,
        "metric": "inner product",
        "faiss": _faiss().__version__,
        "sha256": sha256,
    }
