"""Compare the indexes beside an embedding file with the file: they are derived data, and vouch for nothing.

HDF5 keeps checksums of the rows of the file. An index has only what its own sidecar says, which whoever changed the
index could change too. So the final hits of a search are scored from the file's rows, and `facemill verify` compares.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..fetch import sha256_of
from ..regular import open_regular
from ..storage.file import EmbeddingFile
from .codesfile import codes_path
from .exact import exact_scores
from .indexfile import ensure_index, index_path
from .kinds import APPROXIMATE
from .sidecar import mark_of, read_own_card, sidecar_path

_CHECKED_BYTES = 32 << 20  # of rows that are read at once

logger = logging.getLogger(__name__)


def find_index_damage(gallery: EmbeddingFile) -> Iterator[str]:
    """Yield a sentence for each index beside a file that is not what it should be; none for an outdated index.

    Args:
        gallery: an open embedding file, which is read once if it has an index.
    Raises:
        StorageError: the file is damaged.
    """
    for path in index_paths(gallery.path):
        try:
            card = read_own_card(path, gallery.path)
            if card["source"] != gallery.source:
                continue  # it is rebuilt before it is used
            mark_of(path)  # a regular file
            if path == index_path(gallery.path):
                flaw = _first_difference(path, gallery)
            else:
                flaw = "" if sha256_of(path) == card["sha256"] else "its content has changed"
        except FileNotFoundError:
            continue
        except StorageError as err:
            flaw = err.message
        except (OSError, KeyError, TypeError, ValueError) as err:
            flaw = f"it or its sidecar cannot be used ({type(err).__name__}: {err})"
        if flaw:
            yield f"index {path}: {flaw}. Delete it and its .json: the next search builds it again"


def ensure_true_index(gallery: EmbeddingFile) -> Path | None:
    """Find or build the index file, as `ensure_index` does, and compare all of it with the file first.

    Returns:
        Its path; None if it cannot be saved beside the gallery.
    Raises:
        StorageError: the gallery is damaged, or an index that differs cannot be removed.
    """
    path = ensure_index(gallery)
    if path is None or not (flaw := _first_difference(path, gallery)):
        return path
    discard_indexes(gallery.path, flaw)
    return ensure_index(gallery)


def discard_indexes(gallery: Path, flaw: str) -> None:
    """Remove the indexes beside a file, because one of them is wrong; they are built again when needed.

    Raises:
        StorageError: one cannot be removed.
    """
    logger.warning("the index beside %s is wrong (%s): it is built again", gallery, flaw)
    for path in index_paths(gallery):
        try:
            sidecar_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as err:
            raise StorageError(
                f"the index {path} is wrong ({flaw}) and cannot be removed: {err.strerror}. Remove it, and search again"
            ) from err


def first_wrong_score(
    gallery: EmbeddingFile,
    queries: NDArray[np.float32],
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> str:
    """Compare scores of an index with those of the rows of the file, which HDF5 checks by their checksums.

    Args:
        gallery: an open embedding file.
        queries: (q, D) float32.
        numbers: (n,) the query of each score.
        rows: (n,) the row of each score.
        scores: (n,) float32.
    Returns:
        A sentence about the first score that differs; empty if all are right.
    Raises:
        StorageError: the file is damaged.
    """
    order = np.argsort(rows, kind="stable")
    step = max(1, _CHECKED_BYTES // (4 * gallery.dimension))
    for start in range(0, len(order), step):
        part = order[start : start + step]
        true = exact_scores(gallery.vectors_at(rows[part]), queries[numbers[part]])  # (b,)
        wrong = np.flatnonzero(true != scores[part])
        if len(wrong):
            at = part[wrong[0]]
            return f"it scores row {rows[at]} as {scores[at]:.4f}, the file as {true[wrong[0]]:.4f}"
    return ""


def index_paths(gallery: Path) -> list[Path]:
    """The names of all indexes of a file."""
    return [index_path(gallery), *(codes_path(gallery, kind) for kind in APPROXIMATE)]


def _first_difference(path: Path, gallery: EmbeddingFile) -> str:
    """How the rows of a flat index differ from those of the file; empty if they are the same."""
    with open(open_regular(path), "rb") as file:
        size, row_bytes = file.seek(0, 2), 4 * gallery.dimension
        if size < gallery.rows * row_bytes:
            return f"it has {size:,} bytes; expected: more than {gallery.rows * row_bytes:,}"
        file.seek(size - gallery.rows * row_bytes)
        return _first_different_row(file, gallery)


def _first_different_row(file: IO[bytes], gallery: EmbeddingFile) -> str:
    start = 0
    for block in gallery.blocks():
        stored = np.frombuffer(file.read(block.nbytes), np.float32)
        if stored.size != block.size:
            return "it became shorter while it was read"
        same = (stored.reshape(block.shape) == block).all(axis=1)  # (n,)
        if not same.all():
            return f"its row {start + int(np.argmin(same))} differs from that of the file"
        start += len(block)
    return ""
