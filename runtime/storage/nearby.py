"""Find the files that facemill makes beside an embedding file: indexes, unfinished jobs, remains of killed commands."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError
from ..files import TEMPORARY_SUFFIX, is_trusted
from ..regular import read_regular
from .file import EmbeddingFile
from .runfolder import folder_of

# The attribute that a file keeps when its rows change, and that lists of pages and sidecars of indexes repeat.
IDENTITY = "plan_id"
# All other names that begin with the file's name belong to the user: notes, tables, folders.
_TEMPORARY = f"({re.escape(TEMPORARY_SUFFIX)})"
_BESIDE = re.compile(
    rf"\.faiss(-[a-z0-9]+)?(\.json)?{_TEMPORARY}?|\.(pairs|clusters|attributes|adding)\.parts|\.adding{_TEMPORARY}?|{_TEMPORARY}"
    rf"|\.damaged-\d+|\.pages{_TEMPORARY}|\.(pairs|clusters|attributes|adding)\.parts\.removing-[0-9a-f]{{16}}"
)
_SAYS_WHOSE = re.compile(r"(?P<name>.+)(\.pages|\.review|\.faiss(-[a-z0-9]+)?\.json)", re.DOTALL)
_INDEX = re.compile(r"\.faiss(-[a-z0-9]+)?(\.json)?$")
_MAX_BYTES = 1 << 24  # of a list of pages or a sidecar


def derived_nearby(file: Path, earlier: Sequence[Path]) -> list[Path]:
    """Find facemill's files and folders that hold data of the rows of a file.

    They are beside the file, beside a link to it, or there under a name that the file had before.

    Args:
        file: an embedding file.
        earlier: its `earlier_names`.
    """
    runs = [path for path in map(folder_of, earlier) if os.path.lexists(path)]  # that of the file itself is locked
    beside = [
        path
        for name in {Path(os.path.abspath(file)), Path(os.path.realpath(file)), *earlier}
        for path in name.parent.glob(glob.escape(name.name) + ".*")
        if _BESIDE.fullmatch(path.name[len(name.name) :])
    ]
    return sorted([*runs, *beside])


def is_reserved(path: Path, file: Path) -> bool:
    """Whether a path is one that facemill uses beside an embedding file, or is in a folder of such a name."""
    names = [part.name for part in (path, *path.parents) if part.parent == file.parent]
    suffix = names[0].removeprefix(file.name) if names and names[0].startswith(file.name) else "-"
    return (
        suffix in ("", ".removing", ".pages", ".parts", ".review", ".review-journal")
        or _BESIDE.fullmatch(suffix) is not None
    )


def earlier_names(file: Path) -> list[Path]:
    """Names that a file had before it was renamed: its indexes or its list of pages are still beside it under them.

    A name of which a file exists is not among them: that file may be a copy, and the index is the copy's.
    """
    real, identity = Path(os.path.realpath(file)), identity_of(file)
    names: set[Path] = set()
    if identity:
        with suppress(FileNotFoundError):
            for entry in os.scandir(real.parent):
                match = _SAYS_WHOSE.fullmatch(entry.name)
                path = real.with_name(match["name"]) if match else real
                if not os.path.lexists(path) and _repeats(Path(entry.path), identity, real):
                    names.add(path)
    return sorted(names)


def is_index_of_others(path: Path, file: Path, identity: str) -> bool:
    """Whether a file of `derived_nearby` is an index of rows that the file had before it was replaced.

    Args:
        path: the index, or its sidecar.
        file: the embedding file.
        identity: its `identity_of`.
    """
    if not identity or not _INDEX.search(path.name):
        return False
    return not _repeats(path if path.suffix == ".json" else path.with_name(path.name + ".json"), identity, file)


def identity_of(file: Path) -> str:
    """What an embedding file and its later versions share; empty if it cannot be read."""
    try:
        with EmbeddingFile(file) as embeddings:
            return str(embeddings.metadata.get(IDENTITY, ""))
    except StorageError:
        return ""


def _repeats(path: Path, identity: str, file: Path) -> bool:
    """Whether a list of pages or a sidecar that only trusted users can have written repeats an identity."""
    try:
        if not is_trusted(path, beside=file) or path.stat().st_size > _MAX_BYTES:
            return False
        return f'"{IDENTITY}": "{identity}"'.encode() in read_regular(path, _MAX_BYTES)
    except OSError:
        return False
