"""List the folders below the roots, for a client that chooses photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ...sources.kinds import is_photo_name
from ..settings import path_below

_MAX_FOLDERS = 1000
_MAX_ENTRIES = 100_000


def list_roots(roots: Sequence[Path]) -> dict[str, Any]:
    """The folders of `--photos`, for JSON."""
    folders = [{"name": text, "path": text} for text in (os.path.realpath(root) for root in roots) if _is_text(text)]
    return {"path": "", "parent": None, "folders": folders, "photos": 0, "cut": False}


def list_folder(roots: tuple[Path, ...], path: Path) -> dict[str, Any]:
    """The folders in a folder, for JSON, and the number of its own photos by their endings.

    A link that leads out of the roots is left out, and so is a name that is not UTF-8.

    Args:
        roots: the folders of `--photos`.
        path: a real path below them.
    Raises:
        SourceError: it cannot be listed.
    """
    names, photos, looked_at = [], 0, 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                looked_at += 1
                if looked_at > _MAX_ENTRIES:
                    break
                if is_photo_name(os.fsencode(entry.name)):
                    photos += 1
                elif not entry.name.startswith(".") and _is_text(entry.name) and _is_folder_below(entry, roots):
                    names.append(entry.name)
    except OSError as err:
        raise SourceError(f"{path} cannot be listed: {err.strerror}; expected: a folder that can be read") from err
    names.sort()
    tops = [os.path.realpath(root) for root in roots]
    parent = None if os.fspath(path) in tops else os.fspath(path.parent)
    return {
        "path": os.fspath(path),
        "parent": parent,
        "folders": [{"name": name, "path": os.path.join(path, name)} for name in names[:_MAX_FOLDERS]],
        "photos": photos,
        "cut": len(names) > _MAX_FOLDERS or looked_at > _MAX_ENTRIES,
    }


def _is_folder_below(entry: os.DirEntry[str], roots: tuple[Path, ...]) -> bool:
    try:
        return entry.is_dir() and (not entry.is_symlink() or path_below(roots, entry.path) is not None)
    except OSError:  # links in a circle
        return False


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
