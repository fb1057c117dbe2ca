"""Open and read regular files only.

A path that a user names, or that stands in a file or beside one, may lead to anything. A pipe keeps its reader waiting
for ever, a device never ends, and a sparse file is larger than the memory. So every such file is opened here: without
waiting, only if it is regular, and read only up to a limit.

Example:
    >>> read_regular("/dev/zero", 100)
    Traceback (most recent call last):
    runtime.regular.NotRegular: [Errno 22] it is a device; expected: a regular file: '/dev/zero'
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TypeAlias

AnyPath: TypeAlias = "str | bytes | os.PathLike[str]"

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 20

# Limits for `read_regular`, bytes.
NOTE_BYTES = 1 << 28  # what facemill itself writes beside its results: notes, plans, lists of pages
LIST_BYTES = 1 << 32  # what people write: a table or a list with a line for each photo


class NotRegular(OSError):
    """The path leads to something else than a regular file.

    Attributes:
        kind: "a folder", "a pipe", "a device" or "a socket".
    """

    kind = ""


class TooLarge(OSError):
    """The file has more bytes than its reader takes.

    Attributes:
        size: its bytes, as far as they are known.
    """

    size = 0


def open_regular(path: AnyPath, flags: int = 0) -> int:
    """Open a regular file for reading, and return its descriptor. Never waits.

    Args:
        path: text, bytes or a `Path`.
        flags: more flags of `os.open`, such as O_NOFOLLOW.
    Raises:
        NotRegular: it is something else.
        OSError: it is missing or cannot be opened.
    """
    try:
        fd = os.open(path, _FLAGS | flags)
    except OSError as err:
        if err.errno == errno.ENXIO:
            raise _not_regular("a socket", path) from err
        raise
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
            raise _not_regular(kind, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_regular(path: AnyPath, max_bytes: int) -> bytes:
    """Read a regular file.

    Args:
        path: text, bytes or a `Path`.
        max_bytes: maximum size, bytes.
    Raises:
        NotRegular, TooLarge: nothing was read.
        OSError: it is missing, cannot be read, shrinks while it is read (EINVAL), or is too large for the memory
            (ENOMEM).
    """
    fd = open_regular(path)
    try:
        return read_open(fd, max_bytes, path)
    except MemoryError as err:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), os.fspath(path)) from err
    finally:
        os.close(fd)


def read_start(path: AnyPath, count: int) -> bytes:
    """Read the first bytes of a regular file.

    Args:
        path: text, bytes or a `Path`.
        count: number of bytes; a shorter file has fewer.
    Raises:
        NotRegular: it is something else.
        OSError: it is missing or cannot be read.
    """
    fd = open_regular(path)
    try:
        return os.read(fd, count)
    finally:
        os.close(fd)


def check_readable(path: AnyPath, max_bytes: int) -> None:
    """Check, before the work, that `read_regular` will take a file; see there for the arguments and errors."""
    fd = open_regular(path)
    try:
        if (size := os.fstat(fd).st_size) > max_bytes:
            raise _too_large(size, max_bytes, path)
    finally:
        os.close(fd)


def read_open(fd: int, max_bytes: int, path: AnyPath) -> bytes:
    """Read an open regular file from its start; see `read_regular` for the arguments and errors."""
    size = os.fstat(fd).st_size
    if size > max_bytes:
        raise _too_large(size, max_bytes, path)
    if not size:
        return _read_to_end(fd, max_bytes, path)
    data = os.read(fd, size)  # nearly always all of them
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            reason = f"it shrank while it was read ({len(data)} of {size} bytes)"
            raise OSError(errno.EINVAL, reason, os.fspath(path))
        data += more
    return data


def _read_to_end(fd: int, max_bytes: int, path: AnyPath) -> bytes:
    """Read a file of unknown size: FUSE and /proc say 0."""
    data = bytearray()
    while block := os.read(fd, _BLOCK):
        data += block
        if len(data) > max_bytes:
            raise _too_large(len(data), max_bytes, path)
    return bytes(data)


def _not_regular(kind: str, path: AnyPath) -> NotRegular:
    error = NotRegular(errno.EINVAL, f"it is {kind}; expected: a regular file", os.fspath(path))
    error.kind = kind
    return error


def _too_large(size: int, max_bytes: int, path: AnyPath) -> TooLarge:
    error = TooLarge(errno.EINVAL, f"it has {size:,} bytes; expected: at most {max_bytes:,}", os.fspath(path))
    error.size = size
    return error
