"""Verify an embedding file and the indexes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..index.check import find_index_damage
from ..storage.file import EmbeddingFile
from ..storage.verify import Verified, verify_file


def verify(path: Path) -> Verified:
    """Read all of a finished embedding file and of its indexes, and compare their parts with each other.

    Args:
        path: the file; nothing is written.
    Raises:
        StorageError: the file is not an embedding file, or the system prevents reading it.
    """
    verified = verify_file(path)
    if verified.findings:  # the indexes have nothing to be compared with
        return verified
    with EmbeddingFile(path) as gallery:
        return replace(verified, indexes=tuple(find_index_damage(gallery)))
