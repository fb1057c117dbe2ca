"""Read the list of an embedding file: the pages, lists and folders that were made from it.

`derived.py` writes the list, `<file>.pages`, and says what its lines mean.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import is_trusted, temporary_path
from ..regular import NOTE_BYTES, read_regular
from .deletion import renamed_remains
from .nearby import IDENTITY, OtherNames, other_names, place_of, repeats


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The state of a page, a list or a folder right after facemill wrote it.

    Attributes:
        entries: number of files, links and folders: 1 for a file.
        size_bytes: total size of the files.
        newest_ns: latest modification time; that of a folder changes with its entries.
    """

    entries: int
    size_bytes: int
    newest_ns: int


@dataclass(frozen=True, slots=True)
class PageList:
    """What the list of an embedding file says, with the lists that it had under earlier names.

    Attributes:
        written: the fingerprints of each page, one for each time it was written; none if its writer was killed.
        elsewhere: the locations that `record_elsewhere` recorded.
        copies: the embedding files into which rows were to be copied.
        names: the names that the file had before.
        distrusted: the list, if others may have written it: nothing in it is among the others then.
        foreign: lists beside a link to the file, or under an earlier name, that may be those of another file: nothing
            in them is among the others.
        whole, shared: other lists that were read. All of the first is about the file; of the second, beside names
            that another file has now, only lines of its identity are, and only those are among the others.
        near: pages that a list names relative to its own folder, and that are in it.
        identities: for each page, and each location of `elsewhere`, whose rows it showed when it was written last; see
            `nearby.IDENTITY`. Empty in lists of earlier versions.
    """

    written: dict[Path, tuple[Fingerprint, ...]]
    elsewhere: tuple[str, ...]
    copies: tuple[str, ...]
    names: OtherNames
    distrusted: Path | None
    foreign: tuple[Path, ...]
    whole: tuple[Path, ...]
    shared: tuple[Path, ...]
    near: frozenset[Path]
    identities: dict[Path | str, str]

    def is_of_others(self, page: Path | str) -> bool:
        """Whether a page shows rows that the file had before it was replaced by another one of its name.

        Args:
            page: one of `pages` or `elsewhere`.
        """
        return self.identities.get(page) not in (None, "", self.names.identity)

    def states(self, page: Path) -> tuple[Fingerprint | None, ...]:
        """The fingerprints of a page, or None once if its writer was killed."""
        return self.written.get(page) or (None,)

    def pages(self) -> list[Path]:
        """The pages that were recorded, existing or not, and existing remains of killed commands."""
        return [path for page in self.written for path in (page, *_unfinished(page))]


def read_list(file: Path) -> PageList:
    """Read the list of an embedding file, and those beside its other names. It opens the file.

    Invalid lines are ignored.

    Raises:
        StorageError: the list exists and cannot be read.
    """
    names, distrusted = other_names(file), distrusted_list(file)
    mine = names.identity
    own = [] if distrusted else [list_of(file)]
    beside = map(_list_beside, dict.fromkeys([*names.earlier, place_of(file)]))
    others = [path for path in beside if path != list_of(file)]
    whole = [path for path in others if mine and repeats(path, mine, file)]
    shared = [path for path in map(_list_beside, names.taken) if repeats(path, mine, file)]
    near: set[Path] = set()
    written: dict[Path, tuple[Fingerprint, ...]] = {}
    texts: dict[str, dict[str, None]] = {"elsewhere": {}, "copy": {}}
    identities: dict[Path | str, str] = {}
    for path, entry in ((source, entry) for source in (*own, *whole, *shared) for entry in _entries(source)):
        identity = str(entry["whose"])
        if path in shared and identity != mine:
            continue
        for kind, values in texts.items():
            if isinstance(entry.get(kind), str):
                values[entry[kind]] = None
                identities[entry[kind]] = identity
        try:
            page, states = Path(entry["page"]), (Fingerprint(*map(int, entry["seen"])),) if entry["seen"] else ()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        where = path.parent / page
        if ".." not in page.parts and page.name and _is_possible(where):
            written[where] = (*written.get(where, ()), *states)
            identities[where] = identity
            near |= {where} if not page.is_absolute() and is_below(path.parent, where) else set()
    return PageList(
        written=written,
        elsewhere=tuple(texts["elsewhere"]),
        copies=tuple(texts["copy"]),
        names=names,
        distrusted=distrusted,
        foreign=tuple(path for path in others if path not in whole and os.path.lexists(path)),
        whole=tuple(whole),
        shared=tuple(shared),
        near=frozenset(near),
        identities=identities,
    )


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a list, which may be missing, each with the identity that it follows as `whose`."""
    try:
        lines = read_regular(path, NOTE_BYTES).splitlines()
    except FileNotFoundError:
        return
    except OSError as err:
        raise StorageError(f"the list of pages {path} cannot be read: {err.strerror or err}") from err
    identity = ""
    for line in lines:
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                identity = entry[IDENTITY] if isinstance(entry.get(IDENTITY), str) else identity
                yield {**entry, "whose": identity}


def distrusted_list(file: Path) -> Path | None:
    """The list of pages, if others may have written it, or if it is a pipe: nothing in it is followed then."""
    path = list_of(file)
    return path if os.path.lexists(path) and not is_trusted(path, beside=file) else None


def _is_possible(page: Path) -> bool:
    """Whether a name can exist: the kernel takes no NUL, no lone surrogate and no name beyond its limits."""
    try:
        os.lstat(page)
    except OSError as err:
        return err.errno != errno.ENAMETOOLONG  # another error says something about the disk, not about the name
    except ValueError:
        return False
    return True


def _unfinished(page: Path) -> list[Path]:
    """Existing temporary files of a page, and remains of its deletion; some writers follow a link, some replace it."""
    temporary = [temporary_path(name) for name in dict.fromkeys([page, Path(os.path.realpath(page))])]
    remains = [path for name in (page, *temporary) for path in renamed_remains(name)]
    return [*(name for name in temporary if os.path.lexists(name)), *remains]


def folder_of_file(file: Path) -> str:
    """The folder in which an embedding file lies; a link to the file is followed."""
    return os.path.dirname(os.path.realpath(file))


def is_below(folder: Path | str, page: Path) -> bool:
    """Whether a page is in a folder, whose links were followed, at any depth."""
    return os.path.commonpath([folder, place_of(page)]) == str(folder)


def list_of(file: Path) -> Path:
    """The list of an embedding file: `people.h5` -> `people.h5.pages`; a link to the file is followed."""
    return _list_beside(Path(os.path.realpath(file)))


def _list_beside(name: Path) -> Path:
    return name.with_name(name.name + ".pages")
