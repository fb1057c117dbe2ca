"""Keep decisions true to their embedding file: forget photos that were removed, and join the decisions of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..storage.file import EmbeddingFile
from ..storage.nearby import other_names, place_of, repeats
from .rows import known_paths
from .store import SUFFIX, ReviewStore, review_path


def check_stores(file: Path) -> None:
    """Check, before a removal, that `forget_missing` will be able to read the decisions about a file.

    Raises:
        LockedError, StorageError: a store cannot be read, or is nothing of this user.
    """
    for store in _stores(file):
        store.paths()


def _stores(file: Path) -> list[ReviewStore]:
    """The decisions beside a file, and those of its identity beside a link to it and names that it had before."""
    names, real = other_names(file), Path(os.path.realpath(file))
    beside = {Path(f"{name}{SUFFIX}") for name in (place_of(file), *names.earlier, *names.taken)} - {review_path(file)}
    others = [path for path in sorted(beside) if names.identity and repeats(path, names.identity, real)]
    return [ReviewStore(file), *(ReviewStore(file, at=path) for path in others)]


def forget_missing(file: Path) -> int:
    """Erase from the decisions about a file all photos that it does not have, durably. Doing so twice does no harm.

    The decisions beside a link to the file, and under names that it had before, are included.

    Args:
        file: a finished embedding file.
    Returns:
        The number of faces that were erased.
    Raises:
        DiskFullError, LockedError, StorageError: a store cannot be read or changed.
    """
    forgotten = 0
    for store in _stores(file):
        paths = store.paths()
        if paths:
            with EmbeddingFile(file) as embeddings:
                missing = set(paths) - known_paths(embeddings, paths)
            forgotten += store.forget(missing) if missing else 0
    return forgotten


def join_decisions(files: Sequence[Path], output: Path) -> None:
    """Give a file that is joined from others the decisions about them; those about an earlier output are dropped.

    Faces are named by the absolute paths of their photos, which joining does not change.

    Args:
        files: the files that were joined.
        output: the joined file.
    Raises:
        DiskFullError, LockedError, StorageError: a store cannot be read or written.
    """
    with suppress(FileNotFoundError):
        review_path(output).unlink()
    ReviewStore(output).include([ReviewStore(file) for file in files])
