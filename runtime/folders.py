"""Folders that facemill fills for a user: when a folder is facemill's own, and how new content takes its place.

`replace_folder` makes a new folder under a temporary name and exchanges it for the old one at the end: for exports,
which are a few files. `fill_folder` empties a folder and fills it in place: for a million links and pages, which need
not exist twice. Both refuse a folder with a name that this kind of output does not have. Users keep files of their own
among links and pages: the receipt of the folder (room `receipts`) says what may be removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .access import access_like
from .errors import DiskFullError, FacemillError, OutputExistsError
from .files import (
    TEMPORARY_SUFFIX,
    make_folder,
    restrict_folder,
    storage_error,
    sync_folder,
    temporary_path,
)
from .locks import Lock
from .outputs import check_name, check_parent
from .tree import Tree

MARK = ".facemill.json"  # in a folder that is filled in place: its kind, and whether it is finished
_MAX_MARK_BYTES = 1 << 16
_REPLACED = "replaced"  # in a new folder, for a moment: the old folder whose place it takes


def check_folder(path: Path, kind: str, entries: str, *, force: bool) -> None:
    """Check, before the work, that `fill_folder` can fill a folder.

    It can when the folder does not exist, is empty, or is an unfinished one of facemill's; a finished one with `force`.

    Args:
        path: the folder.
        kind: the content, in the plural, such as "contact sheets".
        entries: a regular expression for the names in the folder.
        force: replace a finished folder.
    Raises:
        ConfigError: the folder above it does not exist.
        OutputExistsError: the folder is finished, or holds a file that facemill did not write.
    """
    check_parent(path, kind, other="another folder")
    check_name(path, other="another folder")
    if not os.path.lexists(path):
        return
    _check_is_folder(path, kind)
    with Tree(Path(os.path.realpath(path))) as folder:
        _check_fillable(folder, path, kind, entries, force=force)


def _check_fillable(folder: Tree, path: Path, kind: str, entries: str, *, force: bool) -> None:
    """Check that the open folder of a path can be filled; see `check_folder`."""
    names = [name for name in folder.entries() if _final_name(name) != MARK]
    _check_names(path, names, kind, entries)
    mark = read_mark(folder)
    if names and mark.get("kind") != kind:
        raise OutputExistsError(
            f"{path} holds {min(names)!r}, and facemill did not make it for {kind}. Name a new or empty folder"
        )
    if mark.get("finished") and not force:
        raise OutputExistsError(f"{path} holds {kind} already. Name another folder, or replace them with --force")


@contextmanager
def fill_folder(
    path: Path,
    kind: str,
    entries: str,
    *,
    force: bool,
    like: Path | Sequence[Path] = (),
    check: Callable[[Tree], None] = lambda folder: None,
    clear: Callable[[Tree], None],
) -> Iterator[Tree]:
    """Create or empty a folder, which the block fills. After a kill the next call empties it again.

    The folder is opened once, under its lock. Everything is looked at, removed and written in the open folder, whatever
    its path leads to by then; at the end its path must lead to it still.

    Args:
        path, kind, entries, force: see `check_folder`.
        like: the files from which the content is made; see `files.make_folder`.
        check: refuses a file that facemill did not write, before the mark says that the folder is unfinished.
        clear: empties the folder, apart from its mark; see `receipts.clear`.
    Yields:
        The open folder.
    Raises:
        OutputExistsError: see `check_folder`; or `check` or `clear` refuses.
        LockedError: another process fills the folder.
        DiskFullError, StorageError: the folder cannot be filled, or another one took its place.
    """
    check_folder(path, kind, entries, force=force)
    with ExitStack() as stack:
        with _naming(path, kind):
            make_folder(path, like=like)
            lock = stack.enter_context(Lock(path, f"another process is writing {path}", folder=True))
            folder = stack.enter_context(Tree(lock.path, fd=lock.fileno()))
            _check_fillable(folder, path, kind, entries, force=force)  # another process may have filled it
            check(folder)
            with suppress(DiskFullError):  # emptying the folder makes room for the mark
                _write_mark(folder, kind, finished=False, like=like)
            clear(folder)
        _write_mark(folder, kind, finished=False, like=like)
        yield folder
        with _naming(path, kind):
            folder.check_place()
        _write_mark(folder, kind, finished=True, like=like)


@contextmanager
def _naming(path: Path, kind: str) -> Iterator[None]:
    """Turn what the system refuses into an error that names the folder."""
    try:
        yield
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, f"the folder for {kind}", path) from err


@contextmanager
def replace_folder(
    path: Path, kind: str, entries: str, *, force: bool, like: Path | Sequence[Path] = ()
) -> Iterator[Path]:
    """Make an empty folder under a temporary name, which takes its place when the block succeeds.

    At every moment the name stands for the old folder, for nothing, or for the new folder.

    Args:
        path: the folder; a symbolic link is followed.
        kind: the content, in the plural, such as "NumPy arrays".
        entries: a regular expression for the names in the folder; the block writes each with `files.synced_file`.
        force: replace an existing folder of this kind.
        like: the files from which the content is made; see `files.make_folder`.
    Raises:
        ConfigError, OutputExistsError, LockedError: before the block.
        DiskFullError, StorageError: an existing folder keeps its content.
    """
    path = Path(os.path.realpath(path))
    temporary = temporary_path(path)
    check_parent(path, kind, other="another folder")
    check_name(path, other="another folder")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists. Name another folder, or replace it with --force")
    sources = [*([like] if isinstance(like, Path) else like), *([path] if path.exists() else [])]
    for folder in (path, temporary):
        if os.path.lexists(folder):
            _check_is_folder(folder, kind, links=False)
            _check_names(folder, os.listdir(folder), kind, f"{entries}|{_REPLACED}")
    with _naming(path, kind), _lock_new_folder(temporary, sources, f"another process is writing {path}"):
        try:
            for leftover in temporary.iterdir():  # of a killed writer
                _remove(leftover)
            yield temporary
            sync_folder(temporary)
            _take_place(temporary, path)
        except BaseException:
            with suppress(OSError):
                _remove(temporary)
            raise


def _check_is_folder(folder: Path, kind: str, *, links: bool = True) -> None:
    if not folder.is_dir() or (folder.is_symlink() and not links):
        raise OutputExistsError(f"{folder} is not a folder. Name another one for the {kind}")


def _check_names(folder: Path, names: Sequence[str], kind: str, entries: str) -> None:
    """Refuse a folder with a file that facemill did not write; temporary names count as the final ones."""
    foreign = [name for name in names if _final_name(name) != MARK and not re.fullmatch(entries, _final_name(name))]
    if foreign:
        raise OutputExistsError(
            f"{folder} holds {min(foreign)!r}, which facemill did not write for {kind}, and is not replaced. "
            f"Name a new or empty folder, or move that file away"
        )


def _final_name(name: str) -> str:
    return name.removesuffix(TEMPORARY_SUFFIX)


def _lock_new_folder(temporary: Path, sources: Sequence[Path], busy: str) -> Lock:
    while True:
        make_folder(temporary, like=sources)
        try:
            lock = Lock(temporary, busy, folder=True)
        except FileNotFoundError:
            continue  # another writer has just renamed it
        restrict_folder(temporary, like=sources)
        return lock


def _take_place(temporary: Path, path: Path) -> None:
    old = temporary / _REPLACED
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
    except BaseException:
        if old.exists():  # the old folder must not go with the unfinished one
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    if (path / _REPLACED).exists():
        sync_folder(path)
        shutil.rmtree(path / _REPLACED)


def _remove(path: Path) -> None:
    """Remove a file, a link itself, or a folder without following links."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_mark(folder: Tree) -> dict[str, object]:
    """The mark of an open folder; empty where there is no mark, or where it is no small regular file of this user."""
    try:
        with folder.open_own(MARK) as file:
            mark = json.loads(file.read(_MAX_MARK_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _write_mark(folder: Tree, kind: str, *, finished: bool, like: Path | Sequence[Path]) -> None:
    """Write the mark of an open folder durably.

    Raises:
        DiskFullError, StorageError: it cannot be written; the folder keeps the old mark.
    """
    data = json.dumps({"kind": kind, "finished": finished}).encode()
    try:
        folder.write(MARK, data, access_like([like] if isinstance(like, Path) else like))
    except OSError as err:
        raise storage_error(err, "the mark of the folder", folder.path / MARK) from err
