"""Write files: durably, one writer at a time, under one scheme of temporary names, with the right permissions.

Every file that facemill writes goes through this module. The rules live here and nowhere else:

- A file appears under its name whole, or not at all. Until then it is `NAME.partial` in the same folder
  (`temporary_path`, `is_temporary`). Content is synced to the disk before the rename, and the folder after it.
- The temporary file is also the lock of its writers. The kernel releases such a lock when a process ends, even after
  `kill -9`, so that no lock is ever stale; the next writer replaces the file that was left behind.
- A new file is private, keeps the access of the file that it replaces, or names its sources (`like=...`) and is never
  more readable than they are; access.py decides.
- Only regular files of this user are written into or replaced, and no symbolic link is followed: another user may have
  put anything under our names.

Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "people.h5").touch(0o600)
    >>> write_durable(folder / "people.csv", b"a,b", "the list", like=folder / "people.h5")
    >>> oct((folder / "people.csv").stat().st_mode & 0o777)
    '0o600'
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import IO

from .access import PRIVATE, Access, access_like
from .errors import DiskFullError, FacemillError, StorageError
from .locks import OPEN_FLAGS, is_open_file, lock_open_file, naming_owner
from .outputs import TEMPORARY_SUFFIX as TEMPORARY_SUFFIX
from .outputs import check_parent, refuse_blocked, refuse_special
from .outputs import temporary_path as temporary_path

_OWN_FOLDER_MODE = 0o700  # until access.py has decided
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a file system answers that cannot sync a folder; its renames are as durable as it makes them.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})

logger = logging.getLogger(__name__)


def is_temporary(path: Path) -> bool:
    """Whether a path has a temporary name: its writer is at work, or was killed."""
    return path.name.endswith(TEMPORARY_SUFFIX)


def is_trusted(path: Path, *, beside: Path | None = None) -> bool:
    """Whether only this user, or root, can have written a file or folder: others may not own it or write to it.

    A missing path is not trusted, and a symbolic link is judged by itself. The owner of the file `beside` a note may
    have written it, and the group may write to the note if it may write to that file.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False
    owners, others = {os.geteuid(), 0}, stat.S_IWGRP | stat.S_IWOTH
    with suppress(OSError):
        if beside is not None:
            file = os.stat(beside)
            owners.add(file.st_uid)
            if file.st_gid == status.st_gid:
                others &= ~(file.st_mode & stat.S_IWGRP)
    plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return plain and status.st_uid in owners and not status.st_mode & others


class NewFile:
    """A file that appears under its name whole and durable at `commit`, or not at all.

    Used in a `with` block; without `commit` the end of the block removes the temporary file. Errors of the system are
    plain `OSError`; `durable_file` is the same with facemill's errors.

    Attributes:
        path: the final name. A symbolic link is replaced, not followed.
        temporary: the name until `commit`; libraries that need a name may write there.
        file: the open temporary file, for reading and writing.
    """

    def __init__(
        self,
        path: Path,
        *,
        like: Path | Sequence[Path] = (),
        mode: int | None = None,
        shared: bool = False,
        wait: bool = False,
        resume: bool = False,
    ) -> None:
        """Create the temporary file and lock it.

        Args:
            path: the final name.
            like: the files from which the content is made: the new file is not more readable than any of them.
            mode, shared: see `access.access_like`.
            wait: wait for another writer of the same file.
            resume: keep the content of a temporary file that was left behind, and leave it again without `commit`.
        Raises:
            LockedError: another process writes the same file, and `wait` is not given.
            OutputExistsError: the name stands for no regular file, or a folder has the temporary one.
            OSError: the file cannot be created.
        """
        self.path, self.temporary, self._resume = path, temporary_path(path), resume
        refuse_special(path)
        refuse_blocked(path)
        busy, self._access = f"another process is writing {path}", _access_of_new_file(path, like, mode, shared)
        with naming_owner(self.temporary):
            fd = _create_locked(self.temporary, self._access.until_finished, busy, wait=wait, resume=resume)
        self.file: BufferedRandom = os.fdopen(fd, "r+b")

    def commit(self) -> None:
        """Sync the content, rename the file, sync the folder.

        Raises:
            OSError: nothing has changed under the final name.
        """
        try:
            self.file.flush()
            self._access.finish(self.file.fileno())
            os.fsync(self.file.fileno())
            os.replace(self.temporary, self.path)
        except BaseException:
            self.close()
            raise
        sync_folder(self.path.parent)
        self.file.close()

    def close(self) -> None:
        """Release the lock, and remove the temporary file unless it is to be resumed; harmless after `commit`."""
        if self.file.closed:
            return
        with suppress(OSError):
            self.file.flush()
        with suppress(OSError):  # the error that ended the writing says more; the next writer removes the file
            if not (self._resume and os.fstat(self.file.fileno()).st_size):
                _unlink_open_file(self.file.fileno(), self.temporary)
        with suppress(OSError):  # a full disk refuses the buffered rest again
            self.file.close()

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def durable_file(
    path: Path, what: str, *, like: Path | Sequence[Path] = (), shared: bool = False, wait: bool = False
) -> Iterator[IO[bytes]]:
    """Open a new file, which replaces `path` durably when the block succeeds.

    Args:
        path: the final name; it keeps its old content when the block fails.
        what: its name in messages, such as "the list".
        like: the files from which the content is made: the new file is not more readable than any of them.
        shared: the content is not personal; see `access.access_like`.
        wait: wait for another writer of the same file.
    Raises:
        LockedError: another process writes the same file, and `wait` is not given.
        DiskFullError, StorageError: the file cannot be written.
    """
    try:
        with NewFile(path, like=like, shared=shared, wait=wait) as new:
            yield new.file
            new.commit()
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, what, path) from err


def write_durable(
    path: Path, data: bytes, what: str, *, like: Path | Sequence[Path] = (), shared: bool = False, wait: bool = False
) -> None:
    """Replace a small file by `data`, durably. See `durable_file` for the other arguments and the errors."""
    with durable_file(path, what, like=like, shared=shared, wait=wait) as file:
        file.write(data)


def sweep_temporary(path: Path) -> None:
    """Remove the temporary file that a killed writer of a file has left; one that is being written stays."""
    if os.path.lexists(temporary_path(path)):
        with suppress(FacemillError, OSError), NewFile(path):
            pass


@contextmanager
def synced_file(path: Path, *, like: Path | Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Open a new file in a folder that is itself still temporary; it is on the disk when the block has succeeded.

    Raises:
        OSError: the file exists or cannot be written.
    """
    with open(_create(path, _access_of_new_file(path, like)), "r+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def create_empty(path: Path, *, like: Path | Sequence[Path] = ()) -> None:
    """Create an empty file for a library that writes to a name, with the right permissions.

    Raises:
        OSError: the file exists or cannot be created.
    """
    os.close(_create(path, _access_of_new_file(path, like)))


def make_folder(path: Path, *, like: Path | Sequence[Path] = (), shared: bool = False) -> None:
    """Create a folder durably, unless it exists.

    Args:
        path: the folder.
        like: the files from which its content is made: only users who can read all of them can enter the new folder.
        shared: the content is not personal; see `access.access_like`.
    Raises:
        ConfigError: the folder for it does not exist.
        OSError: it cannot be created, or is no folder.
    """
    check_parent(path, "the folder", other="another one")
    access = access_like(_paths(like), shared=shared)
    try:
        os.mkdir(path, _OWN_FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        access.set_on(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)


def restrict_folder(path: Path, *, like: Path | Sequence[Path] = ()) -> None:
    """Take from a folder of ours the permissions that `make_folder` would not give it.

    Raises:
        OSError: it belongs to another user.
    """
    mode, allowed = stat.S_IMODE(path.stat().st_mode), access_like(_paths(like)).folder_mode
    if mode & ~allowed & 0o777:
        path.chmod(mode & (allowed | ~0o777))


def sync_folder(folder: Path, *, open_fd: int | None = None) -> None:
    """Make the names in a folder, or in the open folder `open_fd`, durable: only then they survive a power cut.

    A file system that cannot sync a folder is tolerated, and the log says so once: nothing is lost by going on.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if open_fd is None else os.dup(open_fd)
    try:
        os.fsync(fd)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise
        _say_once(f"the file system of {folder} cannot sync folders: a power cut may undo the last renames there")
    finally:
        os.close(fd)


def storage_error(err: OSError, what: str, path: Path) -> StorageError:
    """Turn a failed write into the error to raise, with the next step for the user."""
    if err.errno in _NO_SPACE:
        free = os.statvfs(path.parent)
        return DiskFullError(
            f"no space left while writing {what} {path} ({err.strerror}; {free.f_bavail * free.f_frsize / 1e6:.0f} MB "
            f"free). Complete results are kept: free some space and run the same command again"
        )
    return StorageError(f"{what} {path} cannot be written: {err.strerror or err}")


@functools.cache
def _say_once(text: str) -> None:
    logger.warning("%s", text)


def _paths(like: Path | Sequence[Path]) -> Sequence[Path]:
    return [like] if isinstance(like, Path) else like


def _access_of_new_file(
    path: Path, like: Path | Sequence[Path], mode: int | None = None, shared: bool = False
) -> Access:
    """The access of a new file under a name, which may stand for an existing file."""
    with suppress(FileNotFoundError):
        return access_like(_paths(like), replaced=path if path.exists() else None, mode=mode, shared=shared)
    return access_like(_paths(like), mode=mode, shared=shared)  # the file was removed just now


def _create(path: Path, access: Access) -> int:
    """Create a file, which must not exist, and return its descriptor."""
    fd = os.open(path, OPEN_FLAGS | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        access.set_on(fd)
    except BaseException:
        with suppress(OSError):
            _unlink_open_file(fd, path)
        os.close(fd)
        raise
    return fd


def _unlink_open_file(fd: int, path: Path) -> None:
    """Remove an open file, unless another writer's file has its name by now."""
    if is_open_file(fd, path):
        path.unlink()


def _create_locked(path: Path, access: Access, busy: str, *, wait: bool, resume: bool) -> int:
    """Create a temporary file and lock it; one that a killed writer left is removed first, or resumed."""
    while True:
        try:
            fd, is_new = _create(path, access), True
        except FileExistsError:
            try:
                fd, is_new = os.open(path, OPEN_FLAGS), False
            except FileNotFoundError:
                continue  # its writer has just finished
            except OSError as err:
                if err.errno != errno.ELOOP:
                    raise
                path.unlink()  # the symbolic link itself
                continue
        if not lock_open_file(fd, path, busy, wait=wait, required=False):
            continue
        if is_new or (resume and is_trusted(path)):
            return fd
        with os.fdopen(fd):  # closed even if it cannot be removed: a stranger's file in a folder like /tmp
            path.unlink()
