"""Read the bytes of a file, whatever its path turns out to be."""

from __future__ import annotations

import errno
import os
import stat

from ..errors import FacemillError
from ..records import Status

_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


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
    """The content of a regular file.

    Never blocks on a named pipe and never reads a file over the limit.

    Args:
        path: the file.
        max_bytes: maximum size, bytes.
    Raises:
        ReadError: the file is missing, not readable, not a regular file, too large, or shrinks while it is read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise ReadError(Status.UNREADABLE, err.strerror or str(err)) from err
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ReadError(Status.UNREADABLE, "not a regular file")
        if info.st_size > max_bytes:
            raise ReadError(Status.UNSUPPORTED, f"{info.st_size} bytes, over the limit of {max_bytes}")
        return _read_all(fd, info.st_size) if info.st_size else _read_to_end(fd, max_bytes)
    except ReadError:
        raise
    except OSError as err:
        raise ReadError(Status.UNREADABLE, err.strerror or str(err)) from err
    finally:
        os.close(fd)


def open_below(root: bytes, name: bytes) -> int:
    """Open a regular file below a folder without following a link, so that the name cannot lead out of the folder.

    Args:
        root: the folder, which may itself be reached by links.
        name: path relative to the root.
    Returns:
        A file descriptor for reading, which the caller closes.
    Raises:
        ReadError: the file is missing, not readable, not a regular file, or its path has a link or `..`.
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
        link = err.errno in (errno.ELOOP, errno.ENOTDIR)
        raise ReadError(Status.UNREADABLE, "its path has a link" if link else err.strerror or str(err)) from err
    if not stat.S_ISREG(os.fstat(photo).st_mode):
        os.close(photo)
        raise ReadError(Status.UNREADABLE, "not a regular file")
    return photo


def _read_to_end(fd: int, max_bytes: int) -> bytes:
    """Read a file of unknown size: FUSE and /proc say 0."""
    data = bytearray()
    while block := os.read(fd, 1 << 20):
        data += block
        if len(data) > max_bytes:
            raise ReadError(Status.UNSUPPORTED, f"over the limit of {max_bytes} bytes")
    return bytes(data)


def _read_all(fd: int, size: int) -> bytes:
    """Read `size` bytes, nearly always with one call."""
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise ReadError(Status.UNREADABLE, f"the file shrank while it was read ({len(data)} of {size} bytes)")
        data += more
    return data
