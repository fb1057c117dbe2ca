"""Read the bytes of a file, whatever its path turns out to be.

An error of the system says something about the file (it is missing, not permitted) or about the machine (its disk, its
server, its limits). The first is a ReadError, which becomes an outcome; the second is a MachineError, which never does.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import FacemillError, MachineError
from ..records import Status
from ..regular import NotRegular, TooLarge, open_regular, read_open

_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW

# Errors of the system that say something about the path. Every other one is a fault of the machine: there are many,
# and a new one must not turn into the outcome of photos. ENXIO is a socket, EILSEQ a name that a disk cannot hold.
_OF_THE_FILE = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR,
    errno.EINVAL, errno.ENXIO, errno.EILSEQ, errno.EOVERFLOW,
})  # fmt: skip
_REMEDIES = {
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096",
    errno.ENFILE: "Close programs that hold many files open, or raise fs.file-max",
    errno.ENOMEM: "Close other programs to free memory",
}
_DISK = "Check the disk, its mount and its server (dmesg names what failed)"


class ReadError(FacemillError, OSError):
    """A file could not be read.

    Attributes:
        status: UNREADABLE, or UNSUPPORTED for a file over the size limit.
        detail: why, for the outcome.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def read_file(path: bytes | str, max_bytes: int) -> bytes:
    """The content of a regular file; see `read_file_and_device`."""
    return read_file_and_device(path, max_bytes)[0]


def read_file_and_device(path: bytes | str, max_bytes: int) -> tuple[bytes, int]:
    """The content of a regular file, and the device that it lies on (st_dev).

    Never blocks on a named pipe and never reads a file over the limit.

    Args:
        path: the file.
        max_bytes: maximum size, bytes.
    Raises:
        ReadError: the file is missing, not readable, not a regular file, too large, or shrinks while it is read.
        MachineError: the machine cannot read it now.
    """
    try:
        fd = open_regular(path)
    except OSError as err:
        raise read_error(err, path) from err
    try:
        return read_open(fd, max_bytes, path), os.fstat(fd).st_dev
    except TooLarge as err:
        raise ReadError(Status.UNSUPPORTED, f"{err.size} bytes, over the limit of {max_bytes}") from err
    except (OSError, MemoryError) as err:
        raise read_error(err, path) from err
    finally:
        os.close(fd)


def read_error(err: OSError | MemoryError, path: bytes | str) -> ReadError | MachineError:
    """The error to raise for a file that cannot be opened or read, or a folder that cannot be listed."""
    if isinstance(err, MemoryError):
        err = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    reason = err.strerror or str(err)
    if isinstance(err, NotRegular):
        return ReadError(Status.UNREADABLE, "not a regular file")
    if not is_machine_fault(err):
        return ReadError(Status.UNREADABLE, reason)
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode):
            return ReadError(Status.UNREADABLE, f"not a regular file ({reason})")  # a device may answer anything
    except OSError:
        pass  # the first error says more
    name = errno.errorcode.get(err.errno or 0, "no number")
    return MachineError(
        f"{os.fsdecode(path)} cannot be read: {reason} ({name}). That is a fault of the machine, not of the photo, so "
        f"that nothing is recorded for it; expected: a disk that answers. {_REMEDIES.get(err.errno or 0, _DISK)}, then "
        f"run the same command again to go on"
    )


def is_machine_fault(err: OSError) -> bool:
    """Whether an error of the system says nothing about the file that was to be read."""
    return err.errno is not None and err.errno not in _OF_THE_FILE


def is_folder(path: bytes | str) -> bool:
    """Whether a path is a folder. `os.path.isdir` says no if its disk does not answer.

    Raises:
        MachineError: the machine cannot tell now.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except ValueError:  # a NUL byte in the name
        return False
    except OSError as err:
        if is_machine_fault(err):
            raise read_error(err, path) from err
        return False


def open_below(root: bytes, name: bytes) -> int:
    """Open a regular file below a folder without following a link, so that the name cannot lead out of the folder.

    Args:
        root: the folder, which may itself be reached by links.
        name: path relative to the root.
    Returns:
        A file descriptor for reading, which the caller closes.
    Raises:
        ReadError: the file is missing, not readable, not a regular file, or its path has a link or `..`.
        MachineError: the machine cannot read it now.
    """
    *folders, last = name.split(b"/")
    if name.startswith(b"/") or b".." in (*folders, last) or b"\0" in name:
        raise ReadError(Status.UNREADABLE, "its path leads out of the folder of the photos")
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                parent, fd = fd, os.open(folder, _FOLDER_FLAGS, dir_fd=fd)
                os.close(parent)
            photo = os.open(last, _FILE_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ReadError(Status.UNREADABLE, "its path has a link") from err
        raise read_error(err, os.path.join(root, name)) from err
    if not stat.S_ISREG(os.fstat(photo).st_mode):
        os.close(photo)
        raise ReadError(Status.UNREADABLE, "not a regular file")
    return photo
