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

_MARK = re.compile(r"\.removing-[0-9a-f]{16}$")


def delete(path: Path) -> str:
    """Delete a file, a link itself, or a folder without following links.

    Returns:
        Why it could not be deleted; empty if it is gone.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return ""
        if not is_renamed(path):
            target = path.with_name(f"{path.name}.removing-{secrets.token_hex(8)}")
            path.rename(target)
            sync_folder(path.parent)  # after a power cut no half of the folder has its old name
            path = target
        shutil.rmtree(path)
    except FileNotFoundError:
        return ""
    except OSError as err:
        reason = err.strerror or os.strerror(err.errno or errno.EIO)
        return reason if err.filename in (None, os.fspath(path)) else f"{reason}: {os.fspath(err.filename)}"
    return ""


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
