"""Record and find pages, lists and folders made from an embedding file, so that removing a person can delete them.

The list is `<file>.pages`. It names pages in the folder of the file relative to that folder, so that it stays right
when the folder is moved or copied. `nearby.py` finds the files beside the file, which have fixed names.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import IO

from ..assets import cache_dir
from ..errors import ConfigError, StorageError
from ..files import NewFile, durable_file, is_trusted, write_durable
from ..regular import NOTE_BYTES, read_regular
from .deletion import delete, final_name
from .file import EmbeddingFile
from .nearby import IDENTITY, identity_of, place_of
from .pagelist import Fingerprint, PageList, distrusted_list, folder_of_file, is_below, list_of, read_list
from .runfolder import sweep_leftovers

logger = logging.getLogger(__name__)

_REPLACED_LIST = "pages in a list that another user may have written; the list was replaced"


def take_fingerprint(page: Path) -> Fingerprint | None:
    """The current state of a page, without following links; None if it does not exist.

    Raises:
        OSError: a part of it cannot be looked at.
    """
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
    for folder, folders, files in os.walk(page, onerror=_refuse):  # empty for a file; links are not followed
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def _refuse(err: OSError) -> None:
    if err.errno not in (errno.ENOTDIR, errno.ENOENT):  # it is a file, or it is gone
        raise err


def record_page(file: Path | EmbeddingFile, page: Path, seen: Fingerprint | None = None) -> None:
    """Record that a page, a list or a folder shows photos of a file; a failure is logged.

    Call it when the page is whole, if possible before it gets its name: a kill then leaves nothing that is written but
    not recorded. Only pages that are unchanged since then are ever deleted. See `derived_file`.

    Args:
        file: the embedding file: open, if the page shows its rows. The list is beside it, `<file>.pages`, one line of
            JSON per page. A link is followed, so that a file has one list under all its names.
        page: the page, list or folder.
        seen: its fingerprint while it has a temporary name; None to take it now.
    Raises:
        StorageError: a file with other rows has replaced the open file, so that the page may show photos that were
            removed while it was made. A page that has its name already was deleted.
    """
    page, fingerprint = place_of(page), seen
    if seen is None:
        with suppress(OSError):
            fingerprint = take_fingerprint(page)
    _record(file, page, fingerprint)
    # After the record: a removal from now on finds the page. A removal before has replaced the file.
    if isinstance(file, EmbeddingFile) and was_replaced(file):
        if seen is None:
            delete(page)
        raise StorageError(
            f"{file.path} was replaced while {page} was made from it, so the page was not kept: it may have shown "
            f"photos that were removed. Run the same command again"
        )


def was_replaced(file: EmbeddingFile) -> bool:
    """Whether a file with other rows has taken the name of an open one since it was opened, or the name is gone."""
    try:
        if os.path.samestat(os.stat(file.path), os.fstat(file.hdf5.id.get_vfd_handle())):
            return False
        with EmbeddingFile(file.path) as current:
            return bool(current.metadata["run_id"] != file.metadata["run_id"])
    except OSError:
        return True


def record_start(file: Path | EmbeddingFile, page: Path) -> None:
    """Record that a page will be written, because a kill may leave a part of it. An earlier file does not count.

    This also removes what a killed writer of the embedding file itself left beside it.
    """
    sweep_leftovers(Path(os.path.realpath(_path_of(file))))
    _record(file, place_of(page), None)


def _path_of(file: Path | EmbeddingFile) -> Path:
    return file.path if isinstance(file, EmbeddingFile) else file


def _record(source: Path | EmbeddingFile, page: Path, fingerprint: Fingerprint | None) -> None:
    file = _path_of(source)
    note_line(file, _line(file, page, fingerprint), str(page))
    _note_own(file, page)


def is_own_page(file: Path, page: Path, known: PageList) -> bool:
    """Whether a recorded page may be deleted: it is below the folder of its list, or this user wrote it from the file.

    A list alone decides about nothing elsewhere, because it may have come with a copied folder.
    """
    whole_page = page.with_name(final_name(page))
    if _is_below(file, page) or whole_page in known.near:
        return True
    owns = [_own_note(name, whole_page) for name in {Path(os.path.realpath(file)), place_of(file)}]
    return any(is_trusted(own) and is_trusted(own.parent) for own in owns)


def _is_below(file: Path, page: Path) -> bool:
    return is_below(folder_of_file(file), page)


def _own_note(name: Path, page: Path) -> Path:
    """The note in this user's cache that a page elsewhere was written from a file of a name; it holds no path."""
    both = os.fsencode(name) + b"\0" + os.fsencode(page)
    return cache_dir("pages") / hashlib.sha256(both).hexdigest()


def _note_own(file: Path, page: Path) -> None:
    if _is_below(file, page):
        return
    try:
        write_durable(_own_note(Path(os.path.realpath(file)), page), b"", "the record of a page", wait=True)
    except (ConfigError, OSError) as err:
        logger.warning("%s is not recorded in the cache (%s): facemill remove will only name it", page, err)


def record_elsewhere(file: Path, description: str) -> None:
    """Record that rows of a file were copied to a location where facemill deletes nothing; `remove` reports it.

    Args:
        file: the embedding file.
        description: the location, for people.
    """
    note_line(file, json.dumps({"elsewhere": description}), description)


@contextmanager
def derived_file(
    file: Path | EmbeddingFile,
    page: Path,
    description: str,
    *,
    ready: Callable[[os.stat_result], None] = lambda status: None,
) -> Iterator[IO[bytes]]:
    """Open a new file that shows rows of an embedding file: it is as private as that file, and recorded with it.

    Args:
        file: the embedding file, see `record_page`.
        page: the new file; replaced when the block succeeds.
        description: its name in messages, such as "the list".
        ready: called with the status of the whole file, right before it gets its name.
    Raises:
        LockedError: another process writes the same page.
        DiskFullError, StorageError: the page keeps its old content; or see `record_page`.
    """
    record_start(file, page)
    with durable_file(page, description, like=_path_of(file)) as output:
        yield output
        output.flush()
        status = os.fstat(output.fileno())
        record_page(file, page, Fingerprint(1, status.st_size, status.st_mtime_ns))
        ready(status)


def note_line(file: Path, line: str, description: str) -> None:
    """Add a line to the list of a file, unless it is there; a failure is logged with the description of the place."""
    path = list_of(file)
    try:
        if not distrusted_list(file) and path.exists() and line.encode() in read_regular(path, NOTE_BYTES).splitlines():
            return
        with durable_file(path, "the list of pages", like=_sources(file), wait=True) as output:
            # Read under the lock, so that no line is lost.
            lines = read_regular(path, NOTE_BYTES).splitlines() if path.exists() else []
            if distrusted_list(file):  # its lines must not become lines of a list that is trusted
                lines = [json.dumps({"elsewhere": _REPLACED_LIST}).encode()]
            whose = [known for known in lines if IDENTITY.encode() in known]
            lines += [own.encode() for own in _identity_line(file) if [own.encode()] != whose[-1:]]
            if line.encode() not in lines:
                lines.append(line.encode())
            output.write(b"".join(noted + b"\n" for noted in lines))
    except OSError as err:
        logger.warning("%s is not recorded (%s): facemill remove will not find it", description, err)


def forget_line(file: Path, line: str) -> None:
    """Take a line out of the list of a file, and delete an empty list. A failure leaves it."""
    path = list_of(file)
    if distrusted_list(file) or not path.exists():
        return
    with suppress(OSError), NewFile(path, like=_sources(file), wait=True) as new:
        lines = [other for other in read_regular(path, NOTE_BYTES).splitlines() if other != line.encode()]
        if {*lines} <= {own.encode() for own in _identity_line(file)}:
            path.unlink()
        else:
            new.file.write(b"".join(other + b"\n" for other in lines))
            new.commit()


def _identity_line(file: Path) -> tuple[str, ...]:
    """The line that says whose list it is, should the file get another name."""
    identity = identity_of(file)
    return (json.dumps({IDENTITY: identity}),) if identity else ()


def forget_pages(file: Path, keep: Iterable[Path] = ()) -> None:
    """Remove pages from the list, except some, and delete an empty list. Recorded locations stay.

    A list that others may have written stays as it is: nothing in it was deleted.

    Raises:
        StorageError: the list cannot be read or written; it is unchanged.
    """
    known = read_list(file)
    if known.distrusted:
        return
    keep_set, own = set(keep), known.names.identity
    noted: list[tuple[Path | str, str]]
    noted = [(page, _line(file, page, s)) for page in known.pages() if page in keep_set for s in known.states(page)]
    noted += [(place, json.dumps({"elsewhere": place})) for place in known.elsewhere]
    whose = {place: known.identities.get(place) or own for place, _ in noted}
    lines: list[str] = []
    for identity in (*sorted({*whose.values()} - {own}), own):  # its own last: new lines follow it
        lines += [json.dumps({IDENTITY: identity})] if identity else []
        lines += [line for place, line in noted if whose[place] == identity]
    if noted:
        data = "".join(line + "\n" for line in lines).encode()
        write_durable(list_of(file), data, "the list of pages", like=_sources(file), wait=True)
    else:
        list_of(file).unlink(missing_ok=True)
    for page in keep_set & known.near:
        _note_own(file, page)
    for path in known.whole:
        path.unlink(missing_ok=True)  # its entries are in the list now
    for path in known.shared:
        _forget_identity(path, own)


def _forget_identity(path: Path, identity: str) -> None:
    """Take the lines that follow an identity out of a list of another file."""
    with durable_file(path, "the list of pages", like=_sources(path.with_suffix("")), wait=True) as output:
        kept, whose, is_empty = [], "", True
        for line in read_regular(path, NOTE_BYTES).splitlines(keepends=True):
            told = _value_in(line, IDENTITY)
            whose = told if isinstance(told, str) else whose
            if whose != identity:
                kept.append(line)
                is_empty &= told is not None
        output.write(b"".join(kept))
    if is_empty:
        path.unlink()


def forget_page(file: Path, page: Path) -> None:
    """Remove one page from the list, which is otherwise unchanged: it was removed by the command that made it.

    Raises:
        StorageError: the list cannot be written; it is unchanged.
    """
    path = list_of(file)
    if not path.exists() or distrusted_list(file):
        return
    with durable_file(path, "the list of pages", like=_sources(file), wait=True) as output:
        name = json.loads(_line(file, page, None))["page"]
        lines = [
            line for line in read_regular(path, NOTE_BYTES).splitlines(keepends=True) if _value_in(line, "page") != name
        ]
        output.write(b"".join(lines))
    if all(line.decode().strip() in _identity_line(file) for line in lines):
        path.unlink()


def _value_in(line: bytes, key: str) -> object:
    """The value of a key in a line of a list; None without one."""
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        return entry.get(key) if isinstance(entry, dict) else None
    return None


def _line(file: Path, page: Path, fingerprint: Fingerprint | None) -> str:
    name = os.path.relpath(place_of(page), folder_of_file(file)) if _is_below(file, page) else str(page)
    return json.dumps({"page": name, "seen": astuple(fingerprint) if fingerprint else None})


def _sources(file: Path) -> tuple[Path, ...]:
    return (file,) if file.exists() else ()
