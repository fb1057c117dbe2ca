"""The sidecar of an index: which embedding file the index was made from, and whether the index has changed since."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..fetch import sha256_of
from ..files import NewFile, is_trusted
from ..regular import read_regular

# Clocks of file systems tick every few milliseconds: a later write must get a later time than a mark's.
_TICK_S = 0.02
_MAX_CARD_BYTES = 1 << 20

logger = logging.getLogger(__name__)


def sidecar_path(index: Path) -> Path:
    """`people.h5.faiss` -> `people.h5.faiss.json`."""
    return index.with_name(index.name + ".json")


def read_card(path: Path) -> dict[str, Any]:
    """Read the sidecar of an index.

    Raises:
        OSError, ValueError: the sidecar cannot be read, or is no JSON object.
    """
    return _read(sidecar_path(path))


def read_own_card(path: Path, gallery: Path) -> dict[str, Any]:
    """Read the sidecar of an index that nobody else can have written: only the user, root or the gallery's owner.

    Raises:
        OSError, ValueError: see `read_card`; ValueError also if another user may write the index or its sidecar.
    """
    card = read_card(path)
    for written in (path, sidecar_path(path)):
        mark_of(written)  # a regular file
        if not is_trusted(written, beside=gallery):
            raise ValueError(f"another user can have written {written}")
    return card


def remove_foreign(path: Path, gallery: Path) -> None:
    """Remove an index, or its sidecar, that another user may have written: a new one would get its owner and mode.

    Raises:
        OSError: it cannot be removed.
    """
    for written in (path, sidecar_path(path)):
        if os.path.lexists(written) and not written.is_dir() and not is_trusted(written, beside=gallery):
            written.unlink(missing_ok=True)


def write_card(path: Path, card: Mapping[str, object]) -> None:
    """Write the sidecar of an index with the index's current mark. The sidecar is replaced atomically."""
    time.sleep(_TICK_S)
    _replace(sidecar_path(path), json.dumps({**card, "mark": mark_of(path)}, indent=2) + "\n", like=path)


def amend_card(path: Path, **facts: object) -> None:
    """Add facts to a sidecar. Its mark stays."""
    _replace(sidecar_path(path), json.dumps({**read_card(path), **facts}, indent=2) + "\n")


def renew_source(card: Path, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Replace the `source` of a JSON file if it is `before`, atomically.

    Raises:
        OSError, ValueError: the file cannot be read, is no JSON object, or cannot be written.
    """
    facts = _read(card)
    if facts.get("source") == before:
        _replace(card, json.dumps({**facts, "source": after}, indent=2) + "\n")


def mark_of(path: Path) -> dict[str, int]:
    """Identify a file's state. The mark changes with every write, since a program cannot set back the ctime.

    Raises:
        OSError, ValueError: it does not exist, or is no regular file: a pipe would keep its reader waiting for ever.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file")
    return {"inode": status.st_ino, "size_bytes": status.st_size, "ctime_ns": status.st_ctime_ns}


def is_unchanged(path: Path, card: Mapping[str, Any]) -> bool:
    """Whether an index is the one that its sidecar describes, by its mark or else by its content.

    An index that was moved or copied has a different mark. The new mark is saved, so the content is read only once.
    """
    mark = mark_of(path)
    if mark == card["mark"]:
        return True
    logger.info("checking the content of the index %s: it was moved, copied or changed", path)
    time.sleep(_TICK_S)
    if sha256_of(path) != card["sha256"]:
        return False
    try:
        amend_card(path, mark=mark)
    except (OSError, ValueError, TypeError) as err:
        logger.debug("cannot save the mark of %s: %s", path, err)
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_regular(path, _MAX_CARD_BYTES))
    except RecursionError as err:
        raise ValueError(f"{path} is nested too deeply") from err
    if not isinstance(card, dict):
        raise ValueError(f"got a {type(card).__name__}; expected: a JSON object")
    return card


def _replace(path: Path, text: str, like: Path | Sequence[Path] = ()) -> None:
    """Write a small file durably.

    Raises:
        OSError: the write failed; the file keeps its old content.
    """
    with NewFile(path, like=like, wait=True) as new:
        new.file.write(text.encode())
        new.commit()
