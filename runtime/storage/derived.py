"""Files made from an embedding file that show its rows: removing a person from the file has to find them."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import StorageError
from ..files import TEMPORARY_SUFFIX, durable_file, temporary_path, write_durable

logger = logging.getLogger(__name__)

# Beside the file: the indexes, what an unfinished job keeps, what a killed one left, what a repair replaced. What else
# begins with the file's name is the user's: notes, tables, folders.
_TEMPORARY = f"({re.escape(TEMPORARY_SUFFIX)})"
_BESIDE = re.compile(
    rf"\.faiss(-[a-z0-9]+)?(\.json)?{_TEMPORARY}?|\.(pairs|clusters|adding)\.parts|\.adding{_TEMPORARY}?|{_TEMPORARY}"
    r"|\.damaged-\d+"
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a page, a list or a folder was when facemill had written it.

    Attributes:
        entries: files, links and folders: 1 for a file.
        size_bytes: of the files.
        newest_ns: when the last of them was changed; a folder is when its entries are.
    """

    entries: int
    size_bytes: int
    newest_ns: int


def derived_nearby(file: Path) -> list[Path]:
    """Facemill's own files and folders beside a file, or a link that names it, that hold something of its rows."""
    names = {Path(os.path.abspath(file)), Path(os.path.realpath(file))}
    return sorted(
        path
        for name in names
        for path in name.parent.glob(glob.escape(name.name) + ".*")
        if _BESIDE.fullmatch(path.name[len(name.name) :])
    )


def take_fingerprint(page: Path) -> Fingerprint | None:
    """What is there now, nothing behind a link; None for nothing."""
    entries = size = newest = 0
    try:
        for path in _tree(page):
            found = os.lstat(path)
            entries, newest = entries + 1, max(newest, found.st_mtime_ns)
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Fingerprint(entries, size, newest)


def _tree(page: Path) -> Iterator[str]:
    yield str(page)
    for folder, folders, files in os.walk(page):  # nothing for a file; a link in it is not followed
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def record_page(file: Path, page: Path) -> None:
    """Remember that a page, a list or a folder shows photos of a file; that it cannot be noted is no error.

    Call it once the page is written: only what is still as it was then is ever deleted. See `recording`.

    Args:
        file: the embedding file; the list is kept beside it, as `<file>.pages`, one line of JSON a page. A link is
            followed, so that a file has one list whatever name it is opened by.
        page: what was written.
    """
    page = Path(os.path.abspath(page))
    _note(file, _line(page, take_fingerprint(page)), str(page))


def record_start(file: Path, page: Path) -> None:
    """Remember that a page is about to be written: a kill may leave a part of it. An earlier file there is not it."""
    page = Path(os.path.abspath(page))
    _note(file, _line(page, None), str(page))


@contextmanager
def recording(file: Path, page: Path) -> Iterator[None]:
    """A block that writes a page: noted before, and after it as what it then is.

    Args:
        file, page: as for `record_page`; that the page may be written has been checked.
    """
    record_start(file, page)
    yield
    record_page(file, page)


def record_elsewhere(file: Path, description: str) -> None:
    """Remember that rows of a file are in another place too, where facemill deletes nothing: `remove` names it.

    Args:
        file: as for `record_page`.
        description: the place, for people.
    """
    _note(file, json.dumps({"elsewhere": description}), description)


def recorded_elsewhere(file: Path) -> list[str]:
    """What `record_elsewhere` remembered.

    Raises:
        StorageError: as `written_pages`.
    """
    entries = (entry.get("elsewhere") for entry in _entries(file))
    return list(dict.fromkeys(entry_text for entry_text in entries if isinstance(entry_text, str)))


@contextmanager
def derived_file(file: Path, page: Path, description: str) -> Iterator[IO[bytes]]:
    """Open a new file that shows rows of an embedding file: it is as private as that file, and recorded with it.

    Args:
        file: the embedding file.
        page: the new file; replaced when the block succeeds.
        what: its name in messages, such as "the list".
    Raises:
        LockedError: another process writes the same page.
        DiskFullError, StorageError: the page keeps its old content.
    """
    with recording(file, page), durable_file(page, description, like=file) as output:
        yield output


def _note(file: Path, line: str, description: str) -> None:
    path = _list(file)
    try:
        with durable_file(path, "the list of pages", like=_sources(file), wait=True) as output:
            lines = path.read_bytes().splitlines() if path.exists() else []  # read under the lock: nothing is lost
            if line.encode() not in lines:
                lines.append(line.encode())
            output.write(b"".join(noted + b"\n" for noted in lines))
    except OSError as err:
        logger.warning("%s is not recorded (%s): facemill remove will not find it", description, err)


def recorded_pages(file: Path) -> list[Path]:
    """What `record_page` remembered, whether it still exists or not, and what a killed writer left of it.

    Raises:
        StorageError: as `written_pages`.
    """
    return [path for page in written_pages(file) for path in (page, *_unfinished(page))]


def written_pages(file: Path) -> dict[Path, tuple[Fingerprint, ...]]:
    """What each page was, every time that it had been written; nothing of one whose writer was killed.

    Lines that make no sense are passed over.

    Raises:
        StorageError: the list is there and cannot be read.
    """
    fingerprints: dict[Path, tuple[Fingerprint, ...]] = {}
    for entry in _entries(file):
        try:
            page, states = Path(entry["page"]), (Fingerprint(*map(int, entry["seen"])),) if entry["seen"] else ()
        except (KeyError, TypeError, ValueError):
            continue
        if page.is_absolute():
            fingerprints[page] = (*fingerprints.get(page, ()), *states)
    return fingerprints


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    path = _list(file)
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as err:
        raise StorageError(f"the list of pages {path} cannot be read: {err.strerror or err}") from err
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _unfinished(page: Path) -> list[Path]:
    """Where a page is written until it is whole, if that is there; some writers follow a link and some replace it."""
    names = map(temporary_path, dict.fromkeys([page, Path(os.path.realpath(page))]))
    return [name for name in names if os.path.lexists(name)]


def forget_pages(file: Path, keep: Iterable[Path] = ()) -> None:
    """Drop the list, or all of it but some and what is elsewhere.

    Raises:
        StorageError: it is as it was.
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
