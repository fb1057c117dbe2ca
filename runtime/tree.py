"""Look at, write and remove what is below a folder without following a link: no name leads out of the folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from .access import PRIVATE, Access
from .files import TEMPORARY_SUFFIX, sync_folder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # a pipe must not make us wait
_OWN_FOLDER_MODE = 0o700  # until its access is set
_LINK = frozenset({errno.ENOTDIR, errno.ELOOP})  # a link, or something else that is no folder, is in the path
_OPEN_FOLDERS = 2  # a photo moves from one folder to another


def place_of(err: OSError, folder: Path) -> Path:
    """The folder that an error of a tree names, or the folder of the tree itself."""
    named = Path(err.filename) if isinstance(err.filename, str) else folder
    return named if named.is_absolute() else folder


class Tree:
    """An open folder. Names are paths below it; every folder on the way must be a real one.

    Who may write in the folder above this one, or owns a folder below it, can put a link or another folder in the place
    of a folder at any time. So every folder is opened in its open parent and never through a link, and a folder that
    `make_folder` has made is compared with what its name stands for now.

    Attributes:
        path: the real path of the folder, for messages.
    """

    def __init__(self, path: Path, *, fd: int | None = None) -> None:
        """Open a folder.

        Args:
            path: the folder.
            fd: a descriptor of it, which stays open; None to open the path.
        Raises:
            OSError: there is no such folder, or it is a link.
        """
        self.path = Path(os.path.realpath(path.parent), path.name) if path.name else Path(os.path.realpath(path))
        self._fd = os.open(self.path, _FOLDER) if fd is None else os.dup(fd)
        self._folders = dict[str, int]()  # descriptors of the folders of the last names: most names share them
        self._made = dict[str, tuple[int, int]]()

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (self._fd, *self._folders.values()):
            os.close(fd)

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

    def make_folder(self, name: str, access: Access) -> None:
        """Create a folder, unless it exists. Its name must stand for this folder from now on.

        Args:
            name: the folder.
            access: who can enter a new folder; see `access.access_like`.
        Raises:
            NotADirectoryError: the name stands for a link or a file, or a folder above it was swapped.
            OSError: it cannot be created.
        """
        last, above = self._place(name)
        try:
            os.mkdir(last, _OWN_FOLDER_MODE, dir_fd=above)
            is_new = True
        except FileExistsError:
            is_new = False
        fd = self._open_folder(last, above, name)
        try:
            if is_new:
                if os.listdir(fd):  # the access of a folder of somebody else must not change
                    raise swapped(name)
                access.set_on(fd)
            self._made[name] = _identity(fd)
        finally:
            os.close(fd)

    def sync(self, folder: str = "") -> None:
        """Make the names in a folder durable.

        Raises:
            NotADirectoryError: the folder, or one above it, is gone or was swapped.
            OSError: it cannot be synced.
        """
        last, above = self._place(folder)
        fd = self._open_folder(last or ".", above, folder)
        try:
            sync_folder(self.path, open_fd=fd)
        finally:
            os.close(fd)

    @contextmanager
    def new_file(self, name: str, access: Access) -> Iterator[IO[bytes]]:
        """Open a new file for writing and reading. It is on the disk when the block has succeeded.

        Args:
            name: the file.
            access: who may read it; see `access.access_like`.
        Raises:
            OSError: something of that name is there, a folder of the path was swapped, or the file cannot be written.
        """
        last, folder = self._place(name)
        fd = os.open(last, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE, dir_fd=folder)
        with open(fd, "r+b") as file:
            access.set_on(fd)
            yield file
            file.flush()
            os.fsync(fd)

    def write(self, name: str, data: bytes, access: Access) -> None:
        """Replace a small file durably, whatever had its name or its temporary name. No other process may write it.

        Raises:
            OSError: a folder has one of the names, a folder of the path was swapped, or the file cannot be written.
        """
        temporary = name + TEMPORARY_SUFFIX
        self.unlink(temporary)  # a killed writer left it
        try:
            with self.new_file(temporary, access) as file:
                file.write(data)
            (last, folder), (temporary_last, _) = self._place(name), self._place(temporary)
            os.replace(temporary_last, last, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:  # a full disk needs the space
            with suppress(OSError):
                self.unlink(temporary)
            raise
        self.sync(os.path.dirname(name))

    def symlink(self, target: bytes, name: str) -> None:
        """Create a symbolic link to a path.

        Raises:
            OSError: something of that name is there, a folder of the path was swapped, or links are not possible.
        """
        last, folder = self._place(name)
        os.symlink(target, os.fsencode(last), dir_fd=folder)

    def link(self, fd: int, name: str) -> None:
        """Create a hard link to an open file, whose own name may stand for another file by now.

        Raises:
            OSError: see `symlink`.
        """
        last, folder = self._place(name)
        os.link(f"/proc/self/fd/{fd}", last, dst_dir_fd=folder, follow_symlinks=True)

    def move(self, name: str, new: str) -> None:
        """Move a file to a new name.

        Raises:
            FileExistsError: something of the new name is there.
            OSError: a folder of a path was swapped, or the file is missing.
        """
        (last, folder), (new_last, new_folder) = self._place(name), self._place(new)
        if self.status(new) is not None:  # where names differ only in case, or somebody put a file there
            raise OSError(errno.EEXIST, f"{new!r} is there already. Move it away, and run the same command again")
        os.rename(last, new_last, src_dir_fd=folder, dst_dir_fd=new_folder)

    def check_place(self) -> None:
        """Check that the path still leads to the open folder.

        Raises:
            NotADirectoryError: another folder or a link is in its place, or it is gone.
        """
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            status = None
        if status is None or not os.path.samestat(status, os.fstat(self._fd)):
            raise swapped(self.path.name)

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
            if name in self._folders:  # a new folder may get this name
                os.close(self._folders.pop(name))

    def entries(self) -> list[str]:
        """The names that lie in the folder itself.

        Raises:
            OSError: it cannot be listed.
        """
        return os.listdir(self._fd)

    def names(self, folder: str) -> Iterator[str]:
        """Everything below one of its folders, as paths below that folder; nothing if it is missing.

        Raises:
            NotADirectoryError: it is a link, or no folder.
        """
        last, above = self._place(folder)
        try:
            fd = self._open_folder(last, above, folder)
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
        """The last part of a name, and a descriptor of the folder in which it is, until two other folders are used."""
        parent, _, last = name.rpartition("/")
        if not parent:
            return last, self._fd
        fd = self._folders.pop(parent, None)
        if fd is None:
            fd = self._open_path(parent)
            if len(self._folders) == _OPEN_FOLDERS:
                os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[parent] = fd
        return last, fd

    def _open_path(self, folder: str) -> int:
        fd, path = os.dup(self._fd), ""
        try:
            for part in folder.split("/"):
                path = f"{path}/{part}" if path else part
                above, fd = fd, self._open_folder(part or ".", fd, path)
                os.close(above)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _open_folder(self, last: str, above: int, name: str) -> int:
        """Open a folder in the open one above it."""
        made = self._made.get(name)
        try:
            fd = os.open(last, _FOLDER, dir_fd=above)
        except OSError as err:
            if err.errno in _LINK or (err.errno == errno.ENOENT and made is not None):
                raise swapped(name) from err
            raise
        if made not in (None, _identity(fd)):
            os.close(fd)
            raise swapped(name)
        return fd


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def swapped(name: str) -> OSError:
    """The error to raise where a folder is not the one that was there before."""
    return OSError(
        errno.ENOTDIR,
        f"{name!r} is gone, is a link, or is not the folder that was there before. Move away what is there now, and "
        "run the same command again",
    )
