"""Write files: durably, one writer at a time, under one scheme of temporary names, with the right permissions.

Every file that facemill writes goes through this module. The rules live here and nowhere else:

- A file appears under its name whole, or not at all. Until then it is `NAME.partial` in the same folder
  (`temporary_path`, `is_temporary`). Content is synced to the disk before the rename, and the folder after it.
- The temporary file is also the lock of its writers. The kernel releases such a lock when a process ends, even after
  `kill -9`, so that no lock is ever stale; the next writer replaces the file that was left behind.
- A new file that replaces an old one keeps the permissions of the old one. A derived file names its sources
  (`like=...`) and is never more readable than they are. Permissions are set on the open file, before its first byte:
  the umask of the process is never changed, so that several threads can write.

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
import fcntl
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import IO

from .errors import ConfigError, DiskFullError, FacemillError, LockedError, OutputExistsError, StorageError

TEMPORARY_SUFFIX = ".partial"

_NEW_FILE_MODE = 0o666  # before the umask, as for any new file
_NEW_FOLDER_MODE = 0o777
_LOCK_FILE_MODE = 0o600
_OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW  # a symbolic link under a temporary name is never followed
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a file system without locks answers; NFS has none for folders.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF})

logger = logging.getLogger(__name__)


def temporary_path(path: Path) -> Path:
    """The name of a file or folder until it is whole: `people.h5` -> `people.h5.partial`."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def is_temporary(path: Path) -> bool:
    """Whether a path has a temporary name: its writer is at work, or was killed."""
    return path.name.endswith(TEMPORARY_SUFFIX)


def check_output(
    path: Path, what: str = "", endings: Sequence[str] = (), *, force: bool, other: str = "another file with -o"
) -> None:
    """Check, before the work, that an output file can be written.

    Args:
        path: the output file.
        what: its name in messages, such as "the list".
        endings: the allowed file name endings, in lower case; empty to allow any.
        force: an existing file may be replaced.
        other: the alternative that messages suggest.
    Raises:
        ConfigError: the name has another ending, or the folder does not exist.
        OutputExistsError: the file exists, and `force` is not given; or it is a folder.
    """
    label = what or "the output"
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{label} is {path}; expected: a name that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} for {label} {path.name}. Create it, or name {other}")
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; expected: the name of a file. Name {other}")
    if os.path.lexists(path) and not force:
        raise OutputExistsError(f"{path} exists. Name {other}, or replace it with --force")


class Lock:
    """An exclusive lock on a file or folder, until `release`, the end of a `with` block, or the end of the process.

    It is an advisory `flock`: it excludes other processes, and other threads of this one. Nothing has to be cleaned
    up after a crash. A folder on a file system that cannot lock folders counts as locked.
    """

    def __init__(self, path: Path, busy: str, *, folder: bool = False, wait: bool = False) -> None:
        """Take the lock.

        Args:
            path: a file, which is created empty if it does not exist, or an existing folder.
            folder: the path is a folder; a symbolic link to it is followed.
            busy: what another holder is doing, for messages, such as "another run is writing people.h5".
            wait: wait for another holder.
        Raises:
            LockedError: another process holds the lock, and `wait` is not given; the message names that process.
            OSError: the file cannot be created, or the folder does not exist.
        """
        self.path = path.resolve() if folder else path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC if folder else _OPEN_FLAGS | os.O_CREAT
        while True:
            fd = os.open(self.path, flags, _LOCK_FILE_MODE)
            if _lock_open_file(fd, self.path, busy, wait=wait, required=not folder):
                self._fd = fd
                return

    def release(self) -> None:
        """Release the lock; harmless when it is released already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


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
        self, path: Path, *, like: Path | Sequence[Path] = (), wait: bool = False, resume: bool = False
    ) -> None:
        """Create the temporary file and lock it.

        Args:
            path: the final name.
            like: the files from which the content is made: the new file is not more readable than any of them.
            wait: wait for another writer of the same file.
            resume: keep the content of a temporary file that was left behind, and leave it again without `commit`.
        Raises:
            LockedError: another process writes the same file, and `wait` is not given.
            OSError: the file cannot be created.
        """
        self.path, self.temporary = path, temporary_path(path)
        self._resume = resume
        busy, mode = f"another process is writing {path}", _mode_of_new_file(path, like)
        fd = _create_locked(self.temporary, mode, busy, wait=wait, resume=resume)
        self.file: BufferedRandom = os.fdopen(fd, "r+b")

    def commit(self) -> None:
        """Sync the content, rename the file, sync the folder.

        Raises:
            OSError: nothing has changed under the final name.
        """
        try:
            self.file.flush()
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
        size = os.fstat(self.file.fileno()).st_size
        if not (self._resume and size) and _is_open_file(self.file.fileno(), self.temporary):
            self.temporary.unlink()
        with suppress(OSError):  # a full disk refuses the buffered rest again
            self.file.close()

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def durable_file(path: Path, what: str, *, like: Path | Sequence[Path] = (), wait: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file, which replaces `path` durably when the block succeeds.

    Args:
        path: the final name; it keeps its old content when the block fails.
        what: its name in messages, such as "the list".
        like: the files from which the content is made: the new file is not more readable than any of them.
        wait: wait for another writer of the same file.
    Raises:
        LockedError: another process writes the same file, and `wait` is not given.
        DiskFullError, StorageError: the file cannot be written.
    """
    try:
        with NewFile(path, like=like, wait=wait) as new:
            yield new.file
            new.commit()
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, what, path) from err


def write_durable(path: Path, data: bytes, what: str, *, like: Path | Sequence[Path] = (), wait: bool = False) -> None:
    """Replace a small file durably.

    Args:
        path: the file; it keeps its old content on failure.
        data: the new content.
        what, like, wait: see `durable_file`.
    Raises:
        LockedError, DiskFullError, StorageError: see `durable_file`.
    """
    with durable_file(path, what, like=like, wait=wait) as file:
        file.write(data)


@contextmanager
def synced_file(path: Path, *, like: Path | Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Open a new file in a folder that is itself still temporary; it is on the disk when the block has succeeded.

    Raises:
        OSError: the file exists or cannot be written.
    """
    with open(_create(path, _mode_of_new_file(path, like)), "r+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def create_empty(path: Path, *, like: Path | Sequence[Path] = ()) -> None:
    """Create an empty file for a library that writes to a name, with the right permissions.

    Raises:
        OSError: the file exists or cannot be created.
    """
    os.close(_create(path, _mode_of_new_file(path, like)))


def make_folder(path: Path, *, like: Path | Sequence[Path] = ()) -> None:
    """Create a folder, and its parents, unless it exists.

    Args:
        path: the folder.
        like: the files from which its content is made: only users who can read all of them can enter the new folder.
    Raises:
        OSError: it cannot be created, or is no folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mkdir(path, _NEW_FOLDER_MODE & _permitted_bits(like))
    except FileExistsError:
        if not path.is_dir():
            raise


def restrict_folder(path: Path, *, like: Path | Sequence[Path] = ()) -> None:
    """Take from a folder of ours the permissions that `make_folder` would not give it.

    Raises:
        OSError: it belongs to another user.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~_permitted_bits(like) & 0o777:
        path.chmod(mode & (_permitted_bits(like) | ~0o777))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
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


def _permitted_bits(like: Path | Sequence[Path]) -> int:
    """Permissions that content made from some files may have: all for the owner, and those that every file gives.

    Who can read every file can enter a folder, too; for files the base mode has no such bit.
    """
    bits = 0o777
    for source in [like] if isinstance(like, Path) else like:
        bits &= source.stat().st_mode
    return bits | (bits & 0o444) >> 2 | 0o700


def _mode_of_new_file(path: Path, like: Path | Sequence[Path]) -> tuple[int, bool]:
    """The mode of a new file, and whether it holds whatever the umask is: then it is the mode of the file replaced."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode) & 0o777 & _permitted_bits(like), True
    return _NEW_FILE_MODE & _permitted_bits(like), False


def _create(path: Path, mode: tuple[int, bool]) -> int:
    """Create a file, which must not exist, and return its descriptor. A later policy for new files belongs here."""
    bits, exact = mode
    fd = os.open(path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, bits)
    if exact:
        try:
            os.fchmod(fd, bits)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _create_locked(path: Path, mode: tuple[int, bool], busy: str, *, wait: bool, resume: bool) -> int:
    """Create a temporary file and lock it; one that a killed writer left is removed first, or resumed."""
    while True:
        try:
            fd, is_new = _create(path, mode), True
        except FileExistsError:
            try:
                fd, is_new = os.open(path, _OPEN_FLAGS), False
            except FileNotFoundError:
                continue  # its writer has just finished
        if not _lock_open_file(fd, path, busy, wait=wait, required=False):
            continue
        if is_new or resume:
            return fd
        path.unlink()
        os.close(fd)


def _lock_open_file(fd: int, path: Path, busy: str, *, wait: bool, required: bool) -> bool:
    """Lock an open file or folder; False, and closed, when it has lost its name by then: the caller tries again.

    Raises:
        LockedError: see `Lock`; the file is closed.
    """
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if not wait:
                raise LockedError(
                    f"{busy} ({_name_holder(fd)} holds {path}). Wait until it has finished, or name another output"
                ) from err
            logger.info("waiting: %s (%s holds %s)", busy, _name_holder(fd), path)
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as err:
            if required or err.errno not in _NO_LOCKS:
                raise
        if _is_open_file(fd, path):
            return True
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return False


def _is_open_file(fd: int, path: Path) -> bool:
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
