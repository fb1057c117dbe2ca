"""Record and find files that were made from an embedding file, so that removing a person can delete them."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

from ..assets import cache_dir
from ..errors import ConfigError, StorageError
from ..files import TEMPORARY_SUFFIX, durable_file, is_trusted, temporary_path, write_durable
from .runfolder import sweep_run_folder

logger = logging.getLogger(__name__)

# Names beside the file: indexes, data of unfinished jobs, remains of killed ones, files that a repair replaced. All
# other names that begin with the file's name belong to the user: notes, tables, folders.
_TEMPORARY = f"({re.escape(TEMPORARY_SUFFIX)})"
_BESIDE = re.compile(
    rf"\.faiss(-[a-z0-9]+)?(\.json)?{_TEMPORARY}?|\.(pairs|clusters|adding)\.parts|\.adding{_TEMPORARY}?|{_TEMPORARY}"
    r"|\.damaged-\d+"
)


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


def derived_nearby(file: Path) -> list[Path]:
    """Find facemill's files and folders beside a file, or beside a link to it, that hold data of its rows."""
    names = {Path(os.path.abspath(file)), Path(os.path.realpath(file))}
    return sorted(
        path
        for name in names
        for path in name.parent.glob(glob.escape(name.name) + ".*")
        if _BESIDE.fullmatch(path.name[len(name.name) :])
    )


def take_fingerprint(page: Path) -> Fingerprint | None:
    """The current state of a page, without following links; None if it does not exist."""
    entries = size = newest = 0
    try:
        for path in _tree(page):
            status = os.lstat(path)
            entries, newest = entries + 1, max(newest, status.st_mtime_ns)
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Fingerprint(entries, size, newest)


def _tree(page: Path) -> Iterator[str]:
    yield str(page)
    for folder, folders, files in os.walk(page):  # empty for a file; links are not followed
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def record_page(file: Path, page: Path, seen: Fingerprint | None = None) -> None:
    """Record that a page, a list or a folder shows photos of a file; a failure is logged.

    Call it when the page is whole, if possible before it gets its name: a kill then leaves nothing that is written but
    not recorded. Only pages that are unchanged since then are ever deleted. See `derived_file`.

    Args:
        file: the embedding file. The list is beside it, `<file>.pages`, one line of JSON per page. A link is followed,
            so that a file has one list under all its names.
        page: the page, list or folder.
        seen: its fingerprint while it has another name; None to take it now.
    """
    page = Path(os.path.abspath(page))
    _note(file, _line(page, seen or take_fingerprint(page)), str(page))
    _note_own(file, page)


def record_start(file: Path, page: Path) -> None:
    """Record that a page will be written, because a kill may leave a part of it. An earlier file does not count.

    This also removes what a killed writer of the embedding file itself left beside it.
    """
    sweep_run_folder(Path(os.path.realpath(file)))
    page = Path(os.path.abspath(page))
    _note(file, _line(page, None), str(page))
    _note_own(file, page)


def is_own_page(file: Path, page: Path) -> bool:
    """Whether a recorded page may be deleted: it is below the file's folder, or this user wrote it from the file.

    The list beside the file alone decides about nothing elsewhere, because it may have come with a copied folder.
    """
    if _is_below(file, page):
        return True
    name = page.name.removesuffix(TEMPORARY_SUFFIX)  # a killed writer recorded the final name
    own = _own_note(file, page.with_name(name or page.name))
    return is_trusted(own) and is_trusted(own.parent)


def _is_below(file: Path, page: Path) -> bool:
    folder = os.path.dirname(os.path.realpath(file))
    return os.path.commonpath([folder, os.path.join(os.path.realpath(page.parent), page.name)]) == folder


def _own_note(file: Path, page: Path) -> Path:
    """The note in this user's cache that a page elsewhere was written from a file; its name holds no path."""
    both = os.fsencode(os.path.realpath(file)) + b"\0" + os.fsencode(page)
    return cache_dir("pages") / hashlib.sha256(both).hexdigest()


def _note_own(file: Path, page: Path) -> None:
    if _is_below(file, page):
        return
    try:
        write_durable(_own_note(file, page), b"", "the record of a page", wait=True)
    except (ConfigError, OSError) as err:
        logger.warning("%s is not recorded in the cache (%s): facemill remove will only name it", page, err)


def record_elsewhere(file: Path, description: str) -> None:
    """Record that rows of a file were copied to a location where facemill deletes nothing; `remove` reports it.

    Args:
        file: the embedding file.
        description: the location, for people.
    """
    _note(file, json.dumps({"elsewhere": description}), description)


def recorded_elsewhere(file: Path) -> list[str]:
    """Read the locations that `record_elsewhere` recorded.

    Raises:
        StorageError: the list exists and cannot be read.
    """
    entries = (entry.get("elsewhere") for entry in _entries(file))
    return list(dict.fromkeys(entry_text for entry_text in entries if isinstance(entry_text, str)))


@contextmanager
def derived_file(
    file: Path, page: Path, description: str, *, ready: Callable[[os.stat_result], None] = lambda status: None
) -> Iterator[IO[bytes]]:
    """Open a new file that shows rows of an embedding file: it is as private as that file, and recorded with it.

    Args:
        file: the embedding file.
        page: the new file; replaced when the block succeeds.
        description: its name in messages, such as "the list".
        ready: called with the status of the whole file, right before it gets its name.
    Raises:
        LockedError: another process writes the same page.
        DiskFullError, StorageError: the page keeps its old content.
    """
    record_start(file, page)
    with durable_file(page, description, like=file) as output:
        yield output
        output.flush()
        status = os.fstat(output.fileno())
        record_page(file, page, Fingerprint(1, status.st_size, status.st_mtime_ns))
        ready(status)


def _note(file: Path, line: str, description: str) -> None:
    path = _list(file)
    try:
        if path.exists() and line.encode() in path.read_bytes().splitlines():
            return
        with durable_file(path, "the list of pages", like=_sources(file), wait=True) as output:
            # Read under the lock, so that no line is lost.
            lines = path.read_bytes().splitlines() if path.exists() else []
            if line.encode() not in lines:
                lines.append(line.encode())
            output.write(b"".join(noted + b"\n" for noted in lines))
    except OSError as err:
        logger.warning("%s is not recorded (%s): facemill remove will not find it", description, err)


def recorded_pages(file: Path) -> list[Path]:
    """Read the pages that `record_page` recorded, existing or not, and find the remains of killed writers.

    Raises:
        StorageError: the list exists and cannot be read.
    """
    return [path for page in written_pages(file) for path in (page, *_unfinished(page))]


def written_pages(file: Path) -> dict[Path, tuple[Fingerprint, ...]]:
    """Read the fingerprints of each page, one for each time it was written; none if its writer was killed.

    Invalid lines are ignored.

    Raises:
        StorageError: the list exists and cannot be read.
    """
    fingerprints: dict[Path, tuple[Fingerprint, ...]] = {}
    for entry in _entries(file):
        try:
            page, states = Path(entry["page"]), (Fingerprint(*map(int, entry["seen"])),) if entry["seen"] else ()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if page.is_absolute() and _is_possible(page):
            fingerprints[page] = (*fingerprints.get(page, ()), *states)
    return fingerprints


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    path = _list(file)
    if distrusted_list(file):
        return
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as err:
        raise StorageError(f"the list of pages {path} cannot be read: {err.strerror or err}") from err
    for line in lines:
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def distrusted_list(file: Path) -> Path | None:
    """The list of pages, if others may have written it: nothing in it is followed then."""
    path = _list(file)
    regular = path.is_file() or path.is_symlink()
    return path if regular and not is_trusted(path, beside=file) else None


def _is_possible(page: Path) -> bool:
    """Whether a name can exist: the kernel takes no NUL, no lone surrogate and no name beyond its limits."""
    try:
        os.lstat(page)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    except (OSError, ValueError):
        return False
    return True


def _unfinished(page: Path) -> list[Path]:
    """Existing temporary files of a page; some writers follow a link and some replace it."""
    names = map(temporary_path, dict.fromkeys([page, Path(os.path.realpath(page))]))
    return [name for name in names if os.path.lexists(name)]


def forget_pages(file: Path, keep: Iterable[Path] = ()) -> None:
    """Remove pages from the list, except some, and delete an empty list. Recorded locations stay.

    Raises:
        StorageError: the list cannot be read or written; it is unchanged.
    """
    keep_set, written = set(keep), written_pages(file)
    left = [page for page in recorded_pages(file) if page in keep_set]
    lines = [_line(page, fingerprint) for page in left for fingerprint in written.get(page) or (None,)]
    lines += [json.dumps({"elsewhere": description}) for description in recorded_elsewhere(file)]
    if lines:
        data = "".join(line + "\n" for line in lines).encode()
        write_durable(_list(file), data, "the list of pages", like=_sources(file), wait=True)
    else:
        _list(file).unlink(missing_ok=True)


def _line(page: Path, fingerprint: Fingerprint | None) -> str:
    return json.dumps({"page": str(page), "seen": astuple(fingerprint) if fingerprint else None})


def _sources(file: Path) -> tuple[Path, ...]:
    return (file,) if file.exists() else ()


def _list(file: Path) -> Path:
    return Path(os.path.realpath(file) + ".pages")
