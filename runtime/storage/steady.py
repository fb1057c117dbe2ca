"""Read a file for HDF5 so that an error of the machine is never taken for damage of the file.

HDF5 reports a failed read with the same errors as damage, or even says that an object is missing. A command that
judges a file, or saves what can be read of it, must tell the two apart: a cable that was loose for a moment must not
cost rows. So HDF5 reads such a file through SteadyFile.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ..locks import lock_for_reading

# Numbers of the system that say something about the place in the file, not about the machine.
DAMAGE_ERRNO = (errno.EINVAL, errno.EOVERFLOW)

_open_files: WeakValueDictionary[str, SteadyFile] = WeakValueDictionary()


class SteadyFile(io.FileIO):
    """A file for h5py's file-object driver. It holds a shared lock, as HDF5 does, where the file system has locks.

    A read that fails is tried once more. After a failure that stays, every read fails: nothing can be concluded from
    the file any more.

    Attributes:
        failure: the error that stayed, or None.
    """

    def __init__(self, path: Path) -> None:
        """Open and lock the file.

        Raises:
            OSError: it cannot be opened, or another program has opened it for writing.
        """
        super().__init__(os.fspath(path), "rb", opener=_open)
        self.path = path
        self.failure: OSError | None = None
        try:
            lock_for_reading(self.fileno())
        except OSError:
            self.close()
            raise
        _open_files[repr(self)] = self

    def __repr__(self) -> str:
        return f"facemill-{id(self)}"  # the name that h5py gives HDF5, in ASCII

    def read_at(self, address: int, size: int) -> bytes:
        """Read bytes at an address; fewer at the end of the file.

        Raises:
            OSError: the machine cannot read them.
        """
        for _ in range(2):
            if self.failure is not None:
                raise self.failure
            try:
                return os.pread(self.fileno(), size, address)
            except OSError as err:
                if err.errno in DAMAGE_ERRNO:
                    raise
                failure = err
        self.failure = failure
        raise failure

    def readinto(self, buffer: Any) -> int:
        view, address = memoryview(buffer).cast("B"), self.tell()
        data = self.read_at(address, len(view))
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))  # HDF5's own driver also reads zeros beyond the end
        self.seek(address + len(data))
        return len(view)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def steady_file_of(file: Any) -> SteadyFile | None:
    """The SteadyFile through which an open h5py file is read; None if HDF5 reads it by itself."""
    return _open_files.get(file.filename)


def read_at(file: Any, address: int, size: int) -> bytes:
    """Read bytes of an open h5py file at an address; fewer at the end of the file.

    Raises:
        OSError: the machine cannot read them.
    """
    steady = steady_file_of(file)
    return os.pread(int(file.id.get_vfd_handle()), size, address) if steady is None else steady.read_at(address, size)
