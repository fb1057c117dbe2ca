"""Locks that the kernel releases when a process ends, even after `kill -9`: no lock is ever stale."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from .access import PRIVATE, access_like
from .errors import LockedError

OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW  # a symbolic link in the place of our file is never followed

# What a file system without locks answers; NFS has none for folders.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF})
_ATTEMPTS, _ATTEMPT_S = 100, 0.02  # to lock a file that another process only removes

logger = logging.getLogger(__name__)


class Lock:
    """An exclusive lock on a file or folder, until `release`, the end of a `with` block, or the end of the process.

    It is an advisory `flock`: it excludes other processes, and other threads of this one. Nothing has to be cleaned
    up after a crash. A folder on a file system that cannot lock folders counts as locked.
    """

    def __init__(
        self, path: Path, busy: str, *, folder: bool = False, wait: bool = False, in_place: bool = False
    ) -> None:
        """Take the lock.

        Args:
            path: a file, which is created empty if it does not exist, with the owner of its folder: who may write there
                can take the lock again. Or an existing folder.
            folder: the path is a folder; a symbolic link to it is followed.
            busy: what another holder is doing, for messages, such as "another run is writing people.h5".
            wait: wait for another holder.
            in_place: the caller changes a file and writes no other, so that no message advises to name another output.
        Raises:
            LockedError: another process holds the lock, and `wait` is not given; the message names that process.
            OSError: the file cannot be created, its file system has no locks, or the folder does not exist.
        """
        self.path = path.resolve() if folder else path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        while True:
            with naming_owner(self.path):
                fd = os.open(self.path, flags) if folder else _open_or_create(self.path)
            if lock_open_file(fd, self.path, busy, wait=wait, required=not folder, in_place=in_place):
                self._fd = fd
                return

    def fileno(self) -> int:
        """The descriptor of the locked file. A process that inherits it has the lock too, and keeps it."""
        return self._fd

    def release(self) -> None:
        """Release the lock; harmless when it is released already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def naming_owner(path: Path) -> Iterator[None]:
    """Name the user to whom a file belongs if the system refuses it to this one: a broken-off command of that user."""
    try:
        yield
    except PermissionError as err:
        try:
            owner = os.lstat(path).st_uid
        except OSError:
            raise err from None
        if owner == os.geteuid():
            raise
        raise OSError(  # of EACCES: a PermissionError
            err.errno,
            f"{err.strerror}: {path} belongs to the user {_user_name(owner)}. If no command of that user runs here, "
            f"delete it",
        ) from err


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _open_or_create(path: Path) -> int:
    """Open a file to lock, or create it for the owner of its folder."""
    while True:
        try:
            fd = os.open(path, OPEN_FLAGS | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            with suppress(FileNotFoundError):  # its holder has just removed it
                return os.open(path, OPEN_FLAGS)
            continue
        try:
            replace(access_like([path.parent]), mode=PRIVATE, acl=b"").set_on(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd


def lock_open_file(fd: int, path: Path, busy: str, *, wait: bool, required: bool, in_place: bool = False) -> bool:
    """Lock an open file or folder; False, and closed, when it has lost its name by then: the caller tries again.

    Raises:
        LockedError, OSError: see `Lock`; the file is closed.
    """
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if not wait:
                other = "" if in_place else ", or name another output"
                raise LockedError(
                    f"{busy} ({_name_holder(fd)} holds {path}). Wait until it has finished{other}"
                ) from err
            logger.info("waiting: %s (%s holds %s)", busy, _name_holder(fd), path)
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise
            if required:
                raise OSError(
                    err.errno,
                    f"its file system keeps no locks ({err.strerror}), without which two commands could write one file "
                    f"at once. Put the file on a local disk, or mount its disk with locks",
                    str(path),
                ) from err
        if is_open_file(fd, path):
            return True
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return False


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of a file. A file system without locks, or no file, has no holder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who look do not see each other
    except BlockingIOError:
        return True
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(fd)
    return False


def lock_for_reading(fd: int) -> None:
    """Share the lock of an open file with its other readers, where the file system has locks; closing it ends that.

    Raises:
        OSError: EAGAIN, because another program has locked it for writing.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise


def lock_for_removal(fd: int, path: Path) -> None:
    """Lock an open file, of which others may remove other names, where the file system has locks; closing it ends that.

    Raises:
        OSError: another program has locked it for longer than a removal takes.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as err:
            if not attempts_left:
                raise OSError(err.errno, f"{_name_holder(fd)} has locked it", str(path)) from err
            time.sleep(_ATTEMPT_S)
        except OSError as err:
            if err.errno in _NO_LOCKS:
                return
            raise


def is_open_file(fd: int, path: Path) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _name_holder(fd: int) -> str:
    """Who holds the lock of an open file, as far as the kernel tells."""
    status = os.fstat(fd)
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF
            if len(words) == 8 and words[1] == "FLOCK" and words[5] == name and words[4] != "0":
                return f"process {words[4]}"
    return "another process"
