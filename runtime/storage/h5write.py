"""Write durable HDF5 files, and hide a full disk from HDF5 itself.

HDF5 cannot close a file after a failed write: it keeps the handle and crashes the process at exit (observed with HDF5
1.14 and 2.0 on ENOSPC and EFBIG). So it writes through DiskFile, which stores the first failure and ignores later
ones. The failure is raised after HDF5 has closed the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FacemillError
from ..files import NewFile, storage_error

if TYPE_CHECKING:
    import h5py


class DiskFile(io.RawIOBase):
    """The temporary file of a `NewFile`, for h5py's file-object driver.

    Attributes:
        failure: the first error of a write, or None.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
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
                    done += self._raw.write(view[done:]) or 0
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


class DurableH5:
    """A new HDF5 file that appears under its name whole and durable, or not at all.

    Attributes:
        file: the open h5py file, under its temporary name until `commit`.
    """

    def __init__(
        self,
        path: Path,
        description: str,
        *,
        like: Path | Sequence[Path] = (),
        mode: int | None = None,
    ) -> None:
        """Create the file.

        Args:
            path: the final name.
            description: its name in messages, such as "the segment".
            like: the source files: the new file gets no wider permissions than any of them.
            mode: permission bits that the user named.
        Raises:
            LockedError: another process writes the same file.
            DiskFullError, StorageError: the file cannot be created.
        """
        import h5py

        self.path = path
        self._description = description
        try:
            self._new = NewFile(path, like=like, mode=mode)
        except OSError as err:
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, description, path) from err
        self._disk = DiskFile(self._new.file.raw)
        self.file: h5py.File = h5py.File(self._disk, "w")

    def check(self) -> None:
        """Raise at once if a write has failed.

        Raises:
            DiskFullError, StorageError: a write has failed; the temporary file is removed.
        """
        if self._disk.failure is not None:
            failure = self._disk.failure
            self.discard()
            raise storage_error(failure, self._description, self.path) from failure

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open a block that writes to `file`.

        Raises:
            DiskFullError, StorageError: a write failed; the temporary file is removed. HDF5's own error is not used:
                it may read back garbage after the failure and report that instead.
        """
        try:
            yield
        except (OSError, RuntimeError):
            self.check()
            raise
        self.check()

    def commit(self) -> None:
        """Flush, sync, rename, sync the folder.

        Raises:
            DiskFullError, StorageError: nothing appears under the name.
        """
        with self.writing():
            self.file.close()
        try:
            self._new.commit()
        except OSError as err:
            raise storage_error(err, self._description, self.path) from err

    def discard(self) -> None:
        """Close and remove the temporary file; harmless after `commit`."""
        self._disk.failure = self._disk.failure or OSError("discarded")
        with suppress(OSError, RuntimeError):
            self.file.close()
        self._new.close()


@contextmanager
def durable_h5(
    path: Path, description: str, *, like: Path | Sequence[Path] = (), mode: int | None = None
) -> Iterator[DurableH5]:
    """Open a DurableH5 that is committed when the block succeeds and discarded when it fails."""
    target = DurableH5(path, description, like=like, mode=mode)
    try:
        with target.writing():
            yield target
    except BaseException:
        target.discard()
        raise
    target.commit()
