"""A folder that facemill fills and may empty again: its own, by a mark in it, and nobody else's."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputExistsError
from ..files import storage_error, write_durable

_MARK = ".facemill.json"


def check_folder(path: Path, kind: str, entries: str, *, force: bool) -> None:
    """Say so before the work, not after it, when a folder could not be filled.

    A folder that does not exist or is empty can; one of facemill's own that was left unfinished too; a finished one
    with --force.

    Args:
        path: the folder.
        kind: what it holds, as the mark says it.
        entries: a regular expression that the names of all entries match.
        force: replace what a finished one holds.
    Raises:
        OutputExistsError: it is finished, or holds something of others.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise OutputExistsError(f"{path} is no folder. Name another one for the {kind}")
    names = sorted(name for name in os.listdir(path) if name != _MARK + ".partial")
    mark = _read(path)
    strangers = [name for name in names if name != _MARK and not re.fullmatch(entries, name)]
    if names and (strangers or mark.get("kind") != kind):
        raise OutputExistsError(
            f"{path} holds something that is not of facemill: {(strangers or names)[0]!r}. Name a new or empty folder "
            f"for the {kind}"
        )
    if mark.get("finished") and not force:
        raise OutputExistsError(f"{path} holds {kind} already. Name another folder, or replace them with --force")


@contextmanager
def managed_folder(path: Path, kind: str, entries: str, *, force: bool) -> Iterator[None]:
    """Empty or make a folder, to be filled in the block; what a kill leaves half filled is emptied the next time.

    Args:
        path, kind, entries, force: as for `check_folder`.
    Raises:
        OutputExistsError, StorageError, DiskFullError: as their messages say.
    """
    check_folder(path, kind, entries, force=force)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write(path, kind, finished=False)
        for entry in path.iterdir():
            if entry.name == _MARK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as err:
        raise storage_error(err, f"the folder for {kind}", path) from err
    yield
    _write(path, kind, finished=True)


def _read(path: Path) -> dict[str, object]:
    """The mark; empty where there is none that can be read."""
    try:
        mark = json.loads((path / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _write(path: Path, kind: str, *, finished: bool) -> None:
    write_durable(path / _MARK, json.dumps({"kind": kind, "finished": finished}).encode(), "the mark of the folder")
