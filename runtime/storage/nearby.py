"""Find the files that facemill makes beside an embedding file: indexes, unfinished jobs, remains of killed commands."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
_SIDECAR = r"\.faiss(-[a-z0-9]+)?\.json"
_SAYS_WHOSE = re.compile(rf"(?P<name>.+)(\.pages|\.review|{_SIDECAR})", re.DOTALL)
_INDEX = re.compile(r"\.faiss(-[a-z0-9]+)?(\.json)?$")
_MAX_BYTES = 1 << 24  # of a list of pages or a sidecar


def derived_nearby(file: Path, earlier: Sequence[Path]) -> list[Path]:
    """Find facemill's files and folders that hold data of the rows of a file.

    They are beside the file, beside a link to it, or there under a name that the file had before.

    Args:
        file: an embedding file.
        earlier: names that it had before; see `other_names`.
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


@dataclass(frozen=True, slots=True)
class OtherNames:
    """Names in the folder of a file that it had before it was renamed: files beside them repeat its identity.

    Attributes:
        identity: its `identity_of`.
        earlier: names that no file has now, or a link to the file.
        taken: names that a file with other rows has now. A file with the same identity is a copy, and what is beside
            it is the copy's.
    """

    identity: str
    earlier: tuple[Path, ...]
    taken: tuple[Path, ...]

    def indexes(self, file: Path) -> list[Path]:
        """Indexes of the file, and their sidecars, beside names that are taken."""
        return [
            path
            for name in self.taken
            for path in name.parent.glob(glob.escape(name.name) + ".faiss*")
            if _INDEX.fullmatch(path.name[len(name.name) :]) and repeats(_sidecar(path), self.identity, file)
        ]


def other_names(file: Path) -> OtherNames:
    """Find the names that a file had before. It opens the file once."""
    real, identity = Path(os.path.realpath(file)), identity_of(file)
    names = _names_beside(real, identity) - {real}
    earlier = {name for name in names if not os.path.lexists(name) or os.path.realpath(name) == str(real)}
    taken = [name for name in names - earlier if name.is_file() and identity_of(name) not in ("", identity)]
    return OtherNames(identity, tuple(sorted(earlier)), tuple(sorted(taken)))


def place_of(path: Path) -> Path:
    """A path without links above it: `link/../page` is where the kernel says. It may be a link itself."""
    return Path(os.path.realpath(path.parent), path.name)


def _names_beside(real: Path, identity: str) -> set[Path]:
    """Names of which a list, decisions or a sidecar in the folder of a file repeats its identity."""
    names = set[Path]()
    if identity:
        with suppress(FileNotFoundError):
            for entry in os.scandir(real.parent):
                match = _SAYS_WHOSE.fullmatch(entry.name)
                if match and repeats(Path(entry.path), identity, real):
                    names.add(real.with_name(match["name"]))
    return names


def is_index_of_others(path: Path, file: Path, identity: str) -> bool:
    """Whether a file of `derived_nearby` is an index of rows that the file had before it was replaced.

    Args:
        path: the index, or its sidecar.
        file: the embedding file.
        identity: its `identity_of`.
    """
    if not identity or not _INDEX.search(path.name):
        return False
    return not repeats(_sidecar(path), identity, file)


def _sidecar(index: Path) -> Path:
    """The sidecar of an index, which may be given itself."""
    return index if index.suffix == ".json" else index.with_name(index.name + ".json")


def identity_of(file: Path) -> str:
    """What an embedding file and its later versions share; empty if it cannot be read."""
    try:
        with EmbeddingFile(file) as embeddings:
            return str(embeddings.metadata.get(IDENTITY, ""))
    except StorageError:
        return ""


def repeats(path: Path, identity: str, file: Path) -> bool:
    """Whether a list of pages or a sidecar that only trusted users can have written repeats an identity."""
    try:
        if not is_trusted(path, beside=file) or path.stat().st_size > _MAX_BYTES:
            return False
        return f'"{IDENTITY}": "{identity}"'.encode() in read_regular(path, _MAX_BYTES)
    except OSError:
        return False
