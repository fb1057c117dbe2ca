"""Look at and remove what is below a folder without following a link, so that no name leads out of the folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # a pipe must not make us wait
_LINK = frozenset({errno.ENOTDIR, errno.ELOOP})  # a link, or something else that is no folder, is in the path


def place_of(err: OSError, folder: Path) -> Path:
    """The folder that an error of a tree names, or the folder of the tree itself."""
    named = Path(err.filename) if isinstance(err.filename, str) else folder
    return named if named.is_absolute() else folder


class Tree:
    """An open folder. Names are paths below it; every folder on the way must be a real one.

    Attributes:
        path: the real path of the folder, for messages.
    """

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises:
            OSError: there is no such folder, or it is a link.
        """
        self.path = Path(os.path.realpath(path.parent), path.name) if path.name else Path(os.path.realpath(path))
        self._fd = os.open(self.path, _FOLDER)
        self._parent, self._parent_fd = "", os.dup(self._fd)  # the folder of the last name: most share it

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        os.close(self._parent_fd)

    def status(self, name: str) -> os.stat_result | None:
        """The status of a file, a folder or a link itself; None if it is gone.

        Raises:
            NotADirectoryError: the path leads through a link or a file.
            OSError: it cannot be looked at.
        """
        try:
            with self._naming_folder(name):
                last, folder = self._place(name)
                return os.lstat(last, dir_fd=folder)
        except FileNotFoundError:
            return None

    def open_regular(self, name: str) -> IO[bytes]:
        """Open a regular file for reading.

        Raises:
            OSError: it is missing, a link, or no regular file.
        """
        try:
            with self._naming_folder(name):
                last, folder = self._place(name)
                fd = os.open(last, _FILE, dir_fd=folder)
        except OSError as err:
            if err.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "it is a symbolic link") from err
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no regular file")
        return open(fd, "rb")

    def open_own(self, name: str) -> IO[bytes]:
        """Open a regular file of this user for reading.

        Raises:
            PermissionError: it belongs to another user.
            OSError: it is missing, a link, or no regular file.
        """
        file = self.open_regular(name)
        # Root writes for the owner of the embedding file, who then owns the folder as well.
        owners = {os.geteuid(), *([os.fstat(self._fd).st_uid] if os.geteuid() == 0 else [])}
        if os.fstat(file.fileno()).st_uid not in owners:
            file.close()
            raise OSError(errno.EACCES, "it belongs to another user")
        return file

    def unlink(self, name: str) -> None:
        """Remove a file, or a link itself; harmless if it is gone.

        Raises:
            OSError: it cannot be removed; `filename` is its folder.
        """
        with suppress(FileNotFoundError), self._naming_folder(name):
            last, folder = self._place(name)
            os.unlink(last, dir_fd=folder)

    def rmdir(self, name: str) -> None:
        """Remove an empty folder. A folder that is gone, or holds something, is left as it is."""
        with suppress(OSError):
            last, folder = self._place(name)
            os.rmdir(last, dir_fd=folder)

    def names(self, folder: str) -> Iterator[str]:
        """Everything below one of its folders, as paths below that folder; nothing if it is missing.

        Raises:
            NotADirectoryError: it is a link, or no folder.
        """
        last, above = self._place(folder)
        try:
            fd = os.open(last, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            return
        except OSError as err:
            reason = (errno.ENOTDIR, "it is a link or no folder") if err.errno in _LINK else (err.errno, err.strerror)
            raise OSError(*reason, str(self.path / folder)) from err
        try:
            for top, folders, files, _ in os.fwalk(".", dir_fd=fd):
                for name in (*folders, *files):
                    yield os.path.normpath(os.path.join(top, name))
        finally:
            os.close(fd)

    @contextmanager
    def _naming_folder(self, name: str) -> Iterator[None]:
        """Name the folder of a file in an error of the system, which knows only the last part of the path."""
        try:
            yield
        except OSError as err:
            err.filename = str(self.path / os.path.dirname(name))
            raise

    def _place(self, name: str) -> tuple[str, int]:
        """The last part of a name, and a descriptor of the folder in which it is."""
        parent, _, last = name.rpartition("/")
        if parent != self._parent:
            fd = os.dup(self._fd)
            try:
                for part in parent.split("/") if parent else ():
                    above, fd = fd, os.open(part, _FOLDER, dir_fd=fd)
                    os.close(above)
            except OSError as err:
                os.close(fd)
                if err.errno in _LINK:
                    raise OSError(errno.ENOTDIR, "its path leads through a link") from err
                raise
            os.close(self._parent_fd)
            self._parent, self._parent_fd = parent, fd
        return last, self._parent_fd
