"""Files and folders that appear under their names whole, or not at all; one writer each.

Until then they are NAME.partial. A kill leaves that there; the next export to NAME clears it away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import FacemillError, LockedError, OutputExistsError
from ..files import check_output, storage_error, sync_folder

_REPLACED = "replaced"  # in a new folder, for a moment: the one whose place it takes


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """A new file; it is on the disk when the block has ended well."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path, what: str, *, force: bool) -> Iterator[BinaryIO]:
    """A new file, written under a temporary name, that takes its place when the block ends well.

    Args:
        path: a link is followed.
        what: it is, for messages.
        force: replace an existing file.
    Raises:
        ConfigError, OutputExistsError, LockedError: before the block.
        DiskFullError, StorageError: an existing file stays.
    """
    path = Path(os.path.realpath(path))
    check_output(path, force=force, other="another place")
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; wanted: the name of a file. Name another one")
    partial = path.with_name(path.name + ".partial")
    with _only_writer(partial, os.O_WRONLY | os.O_CREAT, what, path), _cleared_after(partial, what, path):
        with synced_file(partial) as file:
            yield file
        os.replace(partial, path)
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path, names: Collection[str], what: str, *, force: bool) -> Iterator[Path]:
    """A new empty folder under a temporary name, that takes its place when the block ends well.

    At every moment the name stands for the old folder, for nothing, or for the new one.

    Args:
        path: a link is followed.
        names: all that such a folder may hold, files only; the block makes each with `synced_file`. A folder that
            holds anything else is nobody's to replace.
        what: it is, for messages.
        force: replace an existing one.
    Raises:
        ConfigError, OutputExistsError, LockedError: before the block.
        DiskFullError, StorageError: an existing folder stays.
    """
    path = Path(os.path.realpath(path))
    check_output(path, force=force, other="another place")
    partial = path.with_name(path.name + ".partial")
    for there in (path, partial):
        if os.path.lexists(there):
            _check_ours(there, names)
    with (
        _only_writer(partial, os.O_RDONLY | os.O_DIRECTORY, what, path),
        _cleared_after(partial, what, path),
    ):
        for left in partial.iterdir():  # by a killed writer
            _remove(left)
        yield partial
        sync_folder(partial)
        _take_place(partial, path)


def _check_ours(folder: Path, names: Collection[str]) -> None:
    """Refuse to remove what no export has written."""
    if folder.is_symlink() or not folder.is_dir():
        raise OutputExistsError(f"{folder} is no folder of an export and is not replaced. Name another place")
    strangers = sorted(set(os.listdir(folder)) - {*names, _REPLACED})
    if strangers:
        raise OutputExistsError(
            f"{folder} holds something that no export has written, {strangers[0]!r}, and is not replaced. "
            f"Name another place, or move that away"
        )


def _take_place(partial: Path, path: Path) -> None:
    old = partial / _REPLACED
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(partial, path)
    except BaseException:
        if old.exists():  # it must not go with the unfinished one
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    if (path / _REPLACED).exists():
        shutil.rmtree(path / _REPLACED)


@contextmanager
def _cleared_after(partial: Path, what: str, path: Path) -> Iterator[None]:
    """Remove what is unfinished when the block fails, and say why in words."""
    try:
        yield
    except BaseException as err:
        with suppress(OSError):
            _remove(partial)
        if isinstance(err, OSError) and not isinstance(err, FacemillError):
            raise storage_error(err, what, path) from err
        raise


@contextmanager
def _only_writer(partial: Path, flags: int, what: str, path: Path) -> Iterator[None]:
    """Make what is not there and hold its lock, which a kill releases."""
    try:
        fd = _locked(partial, flags)
    except BlockingIOError as err:
        raise LockedError(f"another export is writing {path}. Wait for it, or name another place") from err
    except OSError as err:
        raise storage_error(err, what, path) from err
    try:
        yield
    finally:
        os.close(fd)


def _locked(partial: Path, flags: int) -> int:
    while True:
        if flags & os.O_DIRECTORY:
            partial.mkdir(exist_ok=True)
        fd = os.open(partial, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(partial)):
                return fd
        except FileNotFoundError:
            pass  # a finishing writer renamed it between the two calls
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
