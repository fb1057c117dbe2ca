"""Compare what is in a folder with its receipt: what facemill wrote and nobody changed, and what must stay."""

from __future__ import annotations

import os
import stat
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .receipt import STAGING, Header, Line, Receipt, digest_of


class State(Enum):
    """What is at the place of a photo or page."""

    OURS = "as it was placed"
    GONE = "nothing"
    CHANGED = "changed, or another file"
    LAST = "as it was placed, and its original is gone"


def photo_state(receipt: Receipt, line: Line, inodes: NDArray[np.uint64]) -> State:
    """What is at the place of a photo.

    Args:
        receipt: says how the photo was placed, and where its original is.
        line: the line of the photo.
        inodes: see `Receipt.inodes`.
    """
    header = receipt.header
    assert header is not None
    assert line.photo is not None
    assert line.seen is not None
    try:
        status = receipt.tree.status(receipt.kind.below(line.photo))
    except NotADirectoryError:
        return State.CHANGED
    if status is None:
        return State.GONE
    if status.st_ino != line.seen[0] or stat.S_ISLNK(status.st_mode) != (header.mode == "symlink"):
        return State.CHANGED
    original = _original(header, line.original or line.photo)
    if header.mode == "hardlink":  # the photo may have been edited, but its last name must stay
        if original is not None and os.path.samestat(original, status):
            return State.OURS
        names_here = np.searchsorted(inodes, status.st_ino, "right") - np.searchsorted(inodes, status.st_ino)
        return State.OURS if status.st_nlink > names_here else State.LAST
    if (status.st_size, status.st_mtime_ns) != line.seen[1:]:
        return State.CHANGED
    if header.mode == "copy" and (original is None or original.st_size != status.st_size):
        return State.LAST
    return State.OURS


def staged_state(receipt: Receipt, number: str, batch: list[str]) -> State:
    """What is in the staging folder of a killed command.

    Args:
        receipt: says how the photos were placed, and where the originals are.
        number: name of the file.
        batch: the photos that were staged last.
    """
    status, header = receipt.tree.status(f"{STAGING}/{number}"), receipt.header
    if status is None:
        return State.GONE
    if header is None or not number.isdecimal():
        return State.CHANGED
    if header.mode == "symlink":
        return State.OURS if stat.S_ISLNK(status.st_mode) else State.CHANGED
    if not stat.S_ISREG(status.st_mode) or int(number) >= len(batch):
        return State.CHANGED
    original = _original(header, batch[int(number)])
    if original is None:
        return State.LAST
    if header.mode == "hardlink":
        return State.OURS if os.path.samestat(original, status) else State.LAST
    # A kill can leave the first part of a copy.
    return State.OURS if status.st_size <= original.st_size else State.LAST


def page_state(receipt: Receipt, name: str, written: tuple[int, str]) -> State:
    """What is at the place of a page or list that facemill wrote itself.

    Args:
        receipt: the open receipt.
        name: path below the folder.
        written: size in bytes and SHA-256.
    """
    if receipt.tree.status(name) is None:
        return State.GONE
    try:
        with receipt.tree.open_own(name) as file:
            return State.OURS if digest_of(file) == written else State.CHANGED
    except OSError:
        return State.CHANGED


def _original(header: Header, name: str) -> os.stat_result | None:
    """The status of the original of a photo; None if it is gone."""
    try:
        status = os.stat(os.path.join(header.root, name))
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None
