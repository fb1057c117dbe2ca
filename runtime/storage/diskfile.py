"""Durable files that HDF5 may write to without ever meeting a full disk itself.

HDF5 cannot close a file that it could not write: it keeps the handle and crashes the process at exit (seen with
HDF5 1.14 and 2.0 on ENOSPC and EFBIG). So it writes through DiskFile, which remembers the first failure and swallows
what follows; the failure is raised once HDF5 has closed in peace.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import DiskFullError, FacemillError, StorageError

if TYPE_CHECKING:
    import h5py

_NO_LINK = os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW  # a link that lies there is not written through
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFile(io.RawIOBase):
    """A new binary file for h5py's file-object driver.

    Attributes:
        failure: the first error of a write, or None.
    """

    def __init__(self, path: Path) -> None:
        self._raw = io.FileIO(os.open(path, os.O_RDWR | _NO_LINK, 0o666), "w+")
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        return self._raw.readinto(buffer) or 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.failure is None:
            try:
                done = 0
                while done < len(view):
                    done += self._raw.write(view[done:])
            except OSError as err:
                self.failure = err
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.failure is None:
            try:
                return self._raw.truncate(size)
            except OSError as err:
                self.failure = err
        return size or 0

    def close(self) -> None:
        """Make the content durable and close."""
        if not self._raw.closed:
            try:
                if self.failure is None:
                    os.fsync(self._raw.fileno())
            except OSError as err:
                self.failure = err
            finally:
                self._raw.close()
        super().close()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def readable_as(*files: Path) -> Iterator[None]:
    """A block whose new files can be read by nobody who may not read all of some files, from which they are made.

    It is the process's umask that changes meanwhile.
    """
    allowed = 0o777
    for file in files:
        allowed &= file.stat().st_mode
    enter = (allowed & 0o444) >> 2  # into a folder, for those who may read
    before = os.umask(0o077 & ~(allowed | enter))
    os.umask(before | (0o077 & ~(allowed | enter)))
    try:
        yield
    finally:
        os.umask(before)


def storage_error(err: OSError, what: str, path: Path) -> StorageError:
    """The error to raise for a failed write, with what to do about it."""
    if err.errno in _FULL:
        free = os.statvfs(path.parent)
        return DiskFullError(
            f"no room left while writing {what} {path} ({err.strerror}; {free.f_bavail * free.f_frsize / 1e6:.0f} MB "
            f"free there). What is complete stays: make room and run the same command again"
        )
    return StorageError(f"{what} {path} cannot be written: {err.strerror or err}")


class DurableH5:
    """A new HDF5 file that appears under its name whole, or not at all.

    Attributes:
        file: the open h5py file, written under a temporary name until `commit`.
    """

    def __init__(self, path: Path, what: str) -> None:
        import h5py

        self.path = path
        self._what = what
        self._partial = path.with_name(path.name + ".partial")
        try:
            self._disk = DiskFile(self._partial)
            with suppress(FileNotFoundError):  # who may read the file that is replaced, and nobody else, may read this
                os.chmod(self._partial, path.stat().st_mode & 0o7777)
        except OSError as err:
            raise storage_error(err, what, path) from err
        self.file: h5py.File = h5py.File(self._disk, "w")

    def check(self) -> None:
        """Raise at once if a write has failed.

        Raises:
            DiskFullError, StorageError: it has; the partial file is gone.
        """
        if self._disk.failure is not None:
            failure = self._disk.failure
            self.discard()
            raise storage_error(failure, self._what, self.path) from failure

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that writes to `file`.

        Raises:
            DiskFullError, StorageError: a write failed; the partial file is gone. HDF5 may have met that as garbage
                when it read back what it had written, so its own error is no guide.
        """
        try:
            yield
        except (OSError, RuntimeError):
            self.check()
            raise
        self.check()

    def commit(self) -> None:
        """Flush, fsync, rename, fsync the folder.

        Raises:
            DiskFullError, StorageError: nothing appears under the name.
        """
        with self.writing():
            self.file.close()
            self._disk.close()
        try:
            os.replace(self._partial, self.path)
            sync_folder(self.path.parent)
        except OSError as err:
            self._partial.unlink(missing_ok=True)
            raise storage_error(err, self._what, self.path) from err

    def discard(self) -> None:
        """Close and remove the partial file; harmless after `commit`."""
        self._disk.failure = self._disk.failure or OSError("discarded")
        with suppress(OSError, RuntimeError):
            self.file.close()
        self._disk.close()
        self._partial.unlink(missing_ok=True)


@contextmanager
def durable_h5(path: Path, what: str) -> Iterator[DurableH5]:
    """A DurableH5 that is committed when the block ends well and discarded when it does not."""
    target = DurableH5(path, what)
    try:
        with target.writing():
            yield target
    except BaseException:
        target.discard()
        raise
    target.commit()


@contextmanager
def durable_file(path: Path, what: str) -> Iterator[IO[bytes]]:
    """A new file to write to, which takes its name, whole and durably, when the block ends well.

    Raises:
        DiskFullError, StorageError: an old file of that name stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | _NO_LINK, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as err:
        partial.unlink(missing_ok=True)
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, what, path) from err
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_durable(path: Path, data: bytes, what: str) -> None:
    """Replace a small file atomically and durably.

    Raises:
        DiskFullError, StorageError: the old content stays.
    """
    with durable_file(path, what) as file:
        file.write(data)
