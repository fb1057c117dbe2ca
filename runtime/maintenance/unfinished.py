"""Find photos in the unfinished runs beside an embedding file: they are not in the file yet, and a resume adds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError
from ..files import TEMPORARY_SUFFIX
from ..sources.pathtable import PathTable
from ..storage.file import EmbeddingFile
from ..storage.runfolder import folder_of, read_plan
from .join import common_root
from .selection import select_photos


@dataclass(frozen=True, slots=True)
class UnfinishedRuns:
    """Unfinished runs beside an embedding file that hold named photos.

    Attributes:
        paths: their folders and files.
        names: the names that select their photos.
    """

    paths: tuple[Path, ...]
    names: frozenset[bytes]


def find_unfinished(file: Path, root: bytes, names: Sequence[bytes]) -> UnfinishedRuns:
    """Find the unfinished runs that hold photos with these names.

    A run that cannot be read is taken to hold all of them: nobody can say that it does not.

    Args:
        file: an embedding file, its real path.
        root: the root of its paths.
        names: photos and folders, relative to the root or absolute.
    """
    adding = file.with_name(file.name + ".adding")
    paths: list[Path] = []
    selecting: set[bytes] = set()
    for path in (folder_of(file), adding, folder_of(adding)):
        if os.path.lexists(path):
            selected = _select(path, root, names)
            selecting |= selected
            paths += [path] if selected else []
    return UnfinishedRuns(tuple(paths), frozenset(selecting))


def is_unfinished(path: Path, file: Path) -> bool:
    """Whether a file or folder beside an embedding file belongs to an unfinished run, and holds its photos."""
    suffix = path.name.removeprefix(os.path.basename(os.path.realpath(file)))
    return suffix.startswith(".adding") or suffix == TEMPORARY_SUFFIX


def _select(path: Path, root: bytes, names: Sequence[bytes]) -> set[bytes]:
    """The names that select photos of an unfinished run."""
    try:
        if not path.is_dir():
            with EmbeddingFile(path) as run:
                return _matching(names, root, run.root, run.scanned_paths())
        plan = read_plan(path)
        if plan is None:  # a run without a plan begins again
            return set() if _is_empty(path) else set(names)
        with PathTable(path / "paths") as listed:
            return _matching(names, root, os.fsencode(plan.root), listed)
    except (StorageError, OSError):
        return set(names)


def _is_empty(folder: Path) -> bool:
    return set(os.listdir(folder)) <= {"lock"}


def _matching(names: Sequence[bytes], root: bytes, run_root: bytes, paths: Iterable[bytes]) -> set[bytes]:
    """The names that select some of the paths below the root of a run.

    A name may be relative to the root of the file, to that of the run, or to the root that both will have.
    """
    roots = dict.fromkeys((root, run_root, common_root([root, run_root])))
    spelled = {absolute: name for name in names for absolute in _absolute(name, roots)}
    selection = select_photos(_below(run_root, paths), list(spelled))
    missing = set(selection.missing)
    return {name for absolute, name in spelled.items() if absolute not in missing}


def _absolute(name: bytes, roots: Iterable[bytes]) -> list[bytes]:
    return [name] if name.startswith(b"/") else [os.path.join(folder, name) for folder in roots]


def _below(root: bytes, paths: Iterable[bytes]) -> Iterator[bytes]:
    prefix = root.rstrip(b"/") + b"/"
    return (prefix + path for path in paths)
