"""Remove what a filter placed in a folder: by its receipt, and nothing else. `--undo` and `--force` share this rule.

A photo stays if it was changed since, and if it is the last name, or the last copy, of a photo whose original is gone.
Whatever the receipt does not name stays as well.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FacemillError, OutputExistsError
from ..files import TEMPORARY_SUFFIX, storage_error, sync_folder
from ..folders import MARK
from ..locks import Lock
from ..storage.derived import forget_page
from .receipt import LIST, PHOTOS, RECEIPT, STAGING, Header, Receipt, list_digest
from .tree import Tree


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of undoing a folder.

    Attributes:
        folder: the folder.
        removed: photos (links or copies) that were removed.
        gone: photos that were gone already.
        kept: photos that stay, and the receipt with them: they were changed since, or are in `last`. Also the list, if
            it was changed.
        last: photos that stay because their original is gone: the last copy, or the last name.
    """

    folder: str
    removed: int
    gone: int
    kept: tuple[str, ...]
    last: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


class State(Enum):
    """What is at the place of a photo."""

    OURS = "as it was placed"
    GONE = "nothing"
    CHANGED = "changed, or another file"
    LAST = "as it was placed, and its original is gone"


def state_of(tree: Tree, name: str, seen: tuple[int, int, int], header: Header) -> State:
    """What is at the place of a photo.

    Args:
        tree: the folder.
        name: the photo, below `photos`.
        seen: inode, size and time of change, by the receipt.
        header: says how the photo was placed, and where its original is.
    """
    try:
        status = tree.status(f"{PHOTOS}/{name}")
    except NotADirectoryError:
        return State.CHANGED
    if status is None:
        return State.GONE
    if status.st_ino != seen[0] or stat.S_ISLNK(status.st_mode) != (header.mode == "symlink"):
        return State.CHANGED
    if header.mode == "hardlink":  # the photo may have been edited, but its last name must stay
        return State.OURS if status.st_nlink > 1 else State.LAST
    if (status.st_size, status.st_mtime_ns) != seen[1:]:
        return State.CHANGED
    if header.mode == "copy" and not _has_original(header.root, name, status.st_size):
        return State.LAST
    return State.OURS


def _has_original(root: str, name: str, size: int) -> bool:
    try:
        status = os.stat(os.path.join(root, name))
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def undo(path: Path) -> Undone:
    """Remove the links, copies, list and folders that a filter wrote. What others put there, or changed, stays.

    After a kill the same call goes on. The receipt of a killed filter can be undone.

    Args:
        path: `receipt.jsonl` in the folder. Neither it nor a folder below its own may be a symbolic link.
    Raises:
        ConfigError: the file is not such a receipt, or the folder has lost its mark.
        LockedError: another process writes the folder.
        StorageError: something cannot be removed; the same call goes on.
    """
    with Receipt(path) as receipt:
        folder = receipt.tree.path
        try:
            with Lock(folder, f"another process is writing {folder}", folder=True):
                return remove_written(receipt)
        except OSError as err:
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, "the folder of photos", folder) from err


def remove_written(receipt: Receipt) -> Undone:
    """Undo a folder that is locked by this process; see `undo`."""
    receipt.end()  # a damaged receipt is refused before anything is removed
    tree = receipt.tree
    if not receipt.marked and any(tree.status(name) is not None for name in (PHOTOS, STAGING, LIST)):
        raise ConfigError(
            f"{tree.path} has no file {MARK} of this user for filtered photos, which facemill writes beside the "
            f"receipt; expected: the folder as facemill filter left it. Nothing was removed"
        )
    counts, changed, last = _photos(receipt, remove=True)
    last += _staged(receipt, remove=True)
    if _list_is_ours(receipt):
        tree.unlink(LIST)
    else:
        changed.append(LIST)
    kept = (*changed, *last)
    if not kept:
        _forget(receipt)
    return Undone(str(tree.path), counts[State.OURS], counts[State.GONE], kept, tuple(last))


def check_replaceable(folder: Path) -> None:
    """Check, before the work, that a folder of filtered photos holds nothing but what its receipt names, unchanged.

    Raises:
        ConfigError: its receipt is damaged.
        OutputExistsError: it holds other files; the message names some.
    """
    try:
        _check_replaceable(folder)
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, "the folder of photos", folder) from err


def _check_replaceable(folder: Path) -> None:
    if not os.path.lexists(folder / RECEIPT):
        _refuse(folder, _content(folder))
        return
    with Receipt(folder / RECEIPT) as receipt:
        _, changed, last = _photos(receipt, remove=False)
        keep = [f"{PHOTOS}/{name}" for name in (*changed, *last)]
        keep += [f"{STAGING}/{name}" for name in _staged(receipt, remove=False)]
        if not _list_is_ours(receipt):
            keep.append(LIST)
        keep += _foreign(receipt)
    _refuse(folder, keep)


def clear_folder(folder: Path) -> None:
    """Empty a folder that is locked by this process, so that it can be filled anew; see `check_replaceable`."""
    _check_replaceable(folder)
    if os.path.lexists(folder / RECEIPT):
        with Receipt(folder / RECEIPT) as receipt:
            _photos(receipt, remove=True)
            _staged(receipt, remove=True)
            receipt.tree.unlink(LIST)
            receipt.tree.unlink(RECEIPT)
    _refuse(folder, _content(folder))


def _content(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.removesuffix(TEMPORARY_SUFFIX) != MARK]


def _refuse(folder: Path, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise OutputExistsError(
            f"{folder} holds {min(names)!r}{more}, which facemill did not write there, or which was changed since, or "
            f"whose original is gone. Move that away, or name another folder"
        )


def _photos(receipt: Receipt, *, remove: bool) -> tuple[Counter[State], list[str], list[str]]:
    """Count the photos of a receipt by their states, and name those that stay: changed ones, and last ones."""
    tree, header = receipt.tree, receipt.header
    counts, folders = Counter[State](), list[str]()
    stay: dict[State, list[str]] = {State.CHANGED: [], State.LAST: []}
    if header is None:
        return counts, [], []
    for line in receipt.lines():
        if line.folder is not None:
            folders.append(f"{PHOTOS}/{line.folder}")
        if line.photo is None or line.seen is None:
            continue
        state = state_of(tree, line.photo, line.seen, header)
        counts[state] += 1
        if state in stay:
            stay[state].append(line.photo)
        elif remove and state is State.OURS:
            tree.unlink(f"{PHOTOS}/{line.photo}")
    for made in (*reversed(folders), PHOTOS) if remove else ():
        tree.rmdir(made)
    return counts, stay[State.CHANGED], stay[State.LAST]


def _staged(receipt: Receipt, *, remove: bool) -> list[str]:
    """Names of photos that a killed run had not moved to their places, and that must stay: the last hard links."""
    tree, last = receipt.tree, list[str]()
    for name in list(tree.names(STAGING)):
        status = tree.status(f"{STAGING}/{name}")
        if not name.isdecimal() or status is None or stat.S_ISDIR(status.st_mode):
            continue  # not ours: the folder stays
        if receipt.header is not None and receipt.header.mode == "hardlink" and status.st_nlink < 2:
            last.append(name)
        elif remove:
            tree.unlink(f"{STAGING}/{name}")
    if remove:
        tree.rmdir(STAGING)
    return last


def _list_is_ours(receipt: Receipt) -> bool:
    """Whether the list is gone or unchanged. That of a killed run is ours: the run had emptied the folder."""
    end = receipt.end()
    if end is None or receipt.tree.status(LIST) is None:
        return True
    try:
        with receipt.tree.open_own(LIST) as file:
            return list_digest(file) == end.list
    except OSError:
        return False


def _foreign(receipt: Receipt) -> list[str]:
    """Everything in the folder that the receipt does not name."""
    tree = receipt.tree
    own = {MARK, MARK + TEMPORARY_SUFFIX, PHOTOS, STAGING, LIST, RECEIPT}
    foreign = [name for name in os.listdir(tree.path) if name not in own]
    foreign += [f"{STAGING}/{name}" for name in _names(tree, STAGING) if not name.isdecimal()]
    names = {os.fsencode(name) for name in _names(tree, PHOTOS)}
    for line in receipt.lines():
        names.discard(os.fsencode(line.folder if line.folder is not None else line.photo or ""))
    return foreign + [f"{PHOTOS}/{os.fsdecode(name)}" for name in names]


def _names(tree: Tree, folder: str) -> list[str]:
    try:
        return list(tree.names(folder))
    except NotADirectoryError:
        return ["."]  # a link, or a file, in the place of the folder


def _forget(receipt: Receipt) -> None:
    """Remove what describes the folder, the receipt last, and the folder itself if the filter created it."""
    tree, header = receipt.tree, receipt.header
    if header is not None and os.path.isfile(header.file):
        forget_page(Path(header.file), tree.path)
    tree.unlink(MARK)
    tree.unlink(receipt.path.name)
    sync_folder(tree.path)
    if header is not None and header.new:
        with suppress(OSError):  # somebody put something into it
            tree.path.rmdir()
            sync_folder(tree.path.parent)
