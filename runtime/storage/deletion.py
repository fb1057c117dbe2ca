"""Delete files and folders so that a deletion that is interrupted goes on.

A folder is first renamed to `NAME.removing-` and sixteen random digits. Whatever has such a name is being deleted, so
that the remains of a killed deletion need no other proof that they are ours.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from ..files import TEMPORARY_SUFFIX, sync_folder

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # O_PATH: a folder above need not be readable
_MARK = re.compile(r"\.removing-[0-9a-f]{16}$")


def delete(path: Path) -> str:
    """Delete a file, a link itself, or a folder. No link is followed, in the folder or above it.

    Returns:
        Why it could not be deleted; empty if it is gone.
    """
    try:
        above = _open_folder(os.path.realpath(path.parent))
        try:
            _delete_in(above, path.name)
        finally:
            os.close(above)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as err:
        return err.strerror or os.strerror(err.errno or errno.EIO)
    return ""


def _open_folder(path: str) -> int:
    """Open a folder by its real path, for use in other paths.

    Raises:
        FileNotFoundError, NotADirectoryError: it is no folder.
        OSError: somebody put a link into the path since, or the folder cannot be reached.
    """
    fd = os.open("/", _FOLDER)
    for part in Path(path).parts[1:]:
        try:
            inner = os.open(part, _FOLDER, dir_fd=fd)
        except NotADirectoryError as err:
            if stat.S_ISLNK(os.lstat(part, dir_fd=fd).st_mode):
                raise OSError(errno.ELOOP, "a folder of its path became a link") from err
            raise
        finally:
            os.close(fd)
        fd = inner
    return fd


def _delete_in(folder: int, name: str) -> None:
    if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    if not is_renamed(Path(name)):
        target = f"{name}.removing-{secrets.token_hex(8)}"
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)
        sync_folder(Path(f"/proc/self/fd/{folder}"))  # after a power cut no half of the folder has its old name
        name = target
    shutil.rmtree(f"/proc/self/fd/{folder}/{name}")


def is_renamed(path: Path) -> bool:
    """Whether a path has the name of a folder that is being deleted."""
    return _MARK.search(path.name) is not None


def renamed_remains(path: Path) -> list[Path]:
    """The remains of interrupted deletions of a folder, under their own names."""
    names = path.parent.glob(glob.escape(path.name) + ".removing-*")
    return sorted(name for name in names if _MARK.fullmatch(name.name[len(path.name) :]))


def final_name(path: Path) -> str:
    """The name that a temporary file will have, or that a folder had before its deletion began."""
    return _MARK.sub("", path.name.removesuffix(TEMPORARY_SUFFIX)) or path.name
