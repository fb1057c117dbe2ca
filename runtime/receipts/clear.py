"""Remove what a receipt names, unchanged, and nothing else. `--force` and `--undo` share this rule.

A photo stays if it was changed since, and if it is the last name, or the last copy, of a photo whose original is gone.
Whatever the receipt does not name stays as well.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import FacemillError, OutputExistsError
from ..files import TEMPORARY_SUFFIX, storage_error, sync_folder
from ..folders import MARK, check_folder, fill_folder
from .receipt import RECEIPT, STAGING, Kind, Line, Receipt
from .states import State, page_state, photo_state, staged_state


@dataclass(frozen=True, slots=True)
class Contents:
    """What the receipt of a folder names.

    Attributes:
        counts: number of its photos in each state.
        changed: photos and files that were changed since: paths below the folder.
        last: photos whose originals are gone: paths below the folder.
    """

    counts: Counter[State] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)

    def add(self, name: str, state: State) -> None:
        """Note what must stay."""
        if state is State.CHANGED:
            self.changed.append(name)
        elif state is State.LAST:
            self.last.append(name)


def check_contents(receipt: Receipt) -> Contents:
    """Look at everything that a receipt names, and at what a killed command has staged.

    Raises:
        ConfigError: a line of the receipt is wrong.
        OSError: the folder cannot be read.
    """
    return _contents(receipt, remove=False)


def remove_contents(receipt: Receipt) -> Contents:
    """Remove everything that a receipt names and that need not stay, and the folders that are then empty.

    Everything is removed on the disk when this returns, so that the receipt may go.

    Returns:
        What was there before.
    Raises:
        ConfigError, OSError: see `check_contents`.
    """
    receipt.end()  # a damaged receipt is refused before anything is removed
    contents = _contents(receipt, remove=True)
    sync_folder(receipt.tree.path)
    return contents


def check_receipt_folder(path: Path, kind: Kind, *, force: bool) -> None:
    """Check, before the work, that `receipt_folder` can fill a folder.

    Args:
        path, force: see `folders.check_folder`.
        kind: its kind.
    Raises:
        ConfigError: the folder above it does not exist, or its receipt is damaged.
        OutputExistsError: it is finished, and `force` is false; or it holds what its receipt does not name, or what was
            changed since; the message names one.
        StorageError: it cannot be read.
    """
    check_folder(path, kind.name, kind.all_entries, force=force)
    try:
        if os.path.lexists(path):
            _check_replaceable(path, kind)
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, f"the folder for {kind.name}", path) from err


@contextmanager
def receipt_folder(path: Path, kind: Kind, *, force: bool, like: Path) -> Iterator[None]:
    """Create a folder, or empty it by its receipt; the block fills it. After a kill the next call empties it again.

    Args:
        path, force, like: see `folders.fill_folder`.
        kind: its kind.
    Raises:
        ConfigError, OutputExistsError: see `check_receipt_folder`. Nothing was removed.
        LockedError: another process fills the folder.
        DiskFullError, StorageError: the folder cannot be filled.
    """
    clear = partial(_clear, kind=kind)
    with fill_folder(path, kind.name, kind.all_entries, force=force, like=like, clear=clear):
        yield


def _clear(folder: Path, kind: Kind) -> None:
    _check_replaceable(folder, kind)
    if os.path.lexists(folder / RECEIPT):
        with Receipt(folder / RECEIPT, kind) as receipt:
            remove_contents(receipt)
            receipt.tree.unlink(RECEIPT)
    _refuse(folder, _names_in(folder))


def _check_replaceable(folder: Path, kind: Kind) -> None:
    if not os.path.lexists(folder / RECEIPT):
        names = _names_in(folder)
        if names:
            raise OutputExistsError(
                f"{folder} holds {min(names)!r} and no {RECEIPT}, by which facemill knows what it wrote there. Look at "
                f"the {kind.name}, delete them yourself, or name another folder"
            )
        return
    with Receipt(folder / RECEIPT, kind) as receipt:
        contents = check_contents(receipt)
        _refuse(folder, [*contents.changed, *contents.last, *_foreign(receipt)])


def _names_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.removesuffix(TEMPORARY_SUFFIX) != MARK]


def _refuse(folder: Path, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise OutputExistsError(
            f"{folder} holds {min(names)!r}{more}, which facemill did not write there, or which was changed since, or "
            f"whose original is gone. Nothing was removed. Move that away, or name another folder"
        )


def _contents(receipt: Receipt, *, remove: bool) -> Contents:
    contents, kind = Contents(), receipt.kind
    if receipt.header is not None:
        folders, batch = _listed(receipt, contents, remove=remove)
        for made in [*reversed(folders), *([kind.top] if kind.top else [])] if remove else ():
            receipt.tree.rmdir(made)
    else:
        batch = []
    _staged(receipt, batch, contents, remove=remove)
    if kind.list:
        _list(receipt, contents, remove=remove)
    return contents


def _listed(receipt: Receipt, contents: Contents, *, remove: bool) -> tuple[list[str], list[str]]:
    """Look at the photos and pages of a receipt. Returns its folders, and the batch that was staged last."""
    folders, batch = list[str](), list[str]()
    linked = receipt.header is not None and receipt.header.mode == "hardlink"
    inodes = receipt.inodes() if linked else np.empty(0, np.uint64)
    for line in receipt.lines():
        if line.folder is not None:
            folders.append(receipt.kind.below(line.folder))
        batch = batch if line.batch is None else line.batch
        if line.photo is not None:
            name, state = receipt.kind.below(line.photo), photo_state(receipt, line, inodes)
            contents.counts[state] += 1
        elif line.page is not None and line.written is not None:
            name, state = line.page, page_state(receipt, line.page, line.written)
            if remove:
                _remove_partial(receipt, name)
        else:
            continue
        contents.add(name, state)
        if remove and state is State.OURS:
            receipt.tree.unlink(name)
    return folders, batch


def _staged(receipt: Receipt, batch: list[str], contents: Contents, *, remove: bool) -> None:
    """Look at the photos that a killed command had not moved to their places."""
    for number in list(receipt.tree.names(STAGING)):
        state = staged_state(receipt, number, batch)
        contents.add(f"{STAGING}/{number}", state)
        if remove and state is State.OURS:
            receipt.tree.unlink(f"{STAGING}/{number}")
    if remove:
        receipt.tree.rmdir(STAGING)


def _list(receipt: Receipt, contents: Contents, *, remove: bool) -> None:
    """Look at the list. That of a killed command is ours: the command had emptied the folder."""
    name, end = receipt.kind.list, receipt.end()
    status = receipt.tree.status(name)
    if status is None:
        return
    if end is None or end.list is None:
        state = State.OURS if stat.S_ISREG(status.st_mode) else State.CHANGED
    else:
        state = page_state(receipt, name, end.list)
    contents.add(name, state)
    if remove and state is State.OURS:
        receipt.tree.unlink(name)


def _remove_partial(receipt: Receipt, page: str) -> None:
    """Remove what a killed command has written of a page."""
    status = receipt.tree.status(page + TEMPORARY_SUFFIX)
    if status is not None and stat.S_ISREG(status.st_mode):
        receipt.tree.unlink(page + TEMPORARY_SUFFIX)


def _foreign(receipt: Receipt) -> list[str]:
    """Everything in the folder that the receipt does not name, apart from the staged photos."""
    names = {os.fsencode(name) for name in receipt.tree.names(".")}
    names = {name for name in names if not name.startswith(os.fsencode(STAGING) + b"/")}
    own = [MARK, MARK + TEMPORARY_SUFFIX, RECEIPT, receipt.kind.list]
    own += [name for name in (STAGING, receipt.kind.top) if _is_folder(receipt, name)]
    for name in own:
        names.discard(os.fsencode(name))
    for line in receipt.lines():
        for name in _named(receipt.kind, line):
            names.discard(os.fsencode(name))
    return [os.fsdecode(name) for name in names]


def _named(kind: Kind, line: Line) -> tuple[str, ...]:
    if line.page is not None:
        return line.page, line.page + TEMPORARY_SUFFIX
    place = line.folder if line.folder is not None else line.photo
    return () if place is None else (kind.below(place),)


def _is_folder(receipt: Receipt, name: str) -> bool:
    status = receipt.tree.status(name) if name else None
    return status is not None and stat.S_ISDIR(status.st_mode)
