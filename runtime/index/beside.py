"""The sidecar of an index: which embedding file the index was made from, and whether it is still as it was made."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..fetch import sha256_of
from ..files import NewFile

# Clocks of file systems tick every few milliseconds: a later write must get a later time than a mark's.
_TICK_S = 0.02

logger = logging.getLogger(__name__)


def sidecar_path(index: Path) -> Path:
    """`people.h5.faiss` -> `people.h5.faiss.json`."""
    return index.with_name(index.name + ".json")


def read_card(path: Path) -> dict[str, Any]:
    """What the sidecar of an index says.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON object.
    """
    return _read(sidecar_path(path))


def write_card(path: Path, card: Mapping[str, object]) -> None:
    """Vouch for an index as it lies there now: its mark is added. The sidecar is replaced atomically."""
    time.sleep(_TICK_S)
    _replace(sidecar_path(path), json.dumps({**card, "mark": mark_of(path)}, indent=2) + "\n", like=path)


def amend_card(path: Path, **facts: object) -> None:
    """Add to a sidecar, which goes on vouching for what it vouched for before."""
    _replace(sidecar_path(path), json.dumps({**read_card(path), **facts}, indent=2) + "\n")


def renew_source(card: Path, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Where a file of JSON says that it is of one `source`, say that it is of another; whole or not at all.

    Raises:
        OSError, ValueError: it cannot be read, is no JSON object, or cannot be written.
    """
    facts = _read(card)
    if facts.get("source") == before:
        _replace(card, json.dumps({**facts, "source": after}, indent=2) + "\n")


def mark_of(path: Path) -> dict[str, int]:
    """Changes whenever a file is written to: the time of its last change cannot be set back."""
    stat = os.stat(path)
    return {"inode": stat.st_ino, "size_bytes": stat.st_size, "ctime_ns": stat.st_ctime_ns}


def is_unchanged(path: Path, card: Mapping[str, Any]) -> bool:
    """Whether an index is the one that its sidecar was written for, by its mark or else by its content.

    One that was moved or copied has another mark, which is noted: its content is read once and not at every search.
    """
    mark = mark_of(path)
    if mark == card["mark"]:
        return True
    logger.info("reading the index %s, to see whether it is as it was made: it was moved, copied or changed", path)
    time.sleep(_TICK_S)
    if sha256_of(path) != card["sha256"]:
        return False
    try:
        amend_card(path, mark=mark)
    except (OSError, ValueError, TypeError) as err:
        logger.debug("the mark of %s cannot be noted: %s", path, err)
    return True


def _read(path: Path) -> dict[str, Any]:
    card = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise ValueError(f"it holds a {type(card).__name__}")
    return card


def _replace(path: Path, text: str, like: Path | Sequence[Path] = ()) -> None:
    """Write a small file durably.

    Raises:
        OSError: it keeps its old content.
    """
    with NewFile(path, like=like, wait=True) as new:
        new.file.write(text.encode())
        new.commit()
