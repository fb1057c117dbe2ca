"""Remove what a receipt names, unchanged, and nothing else. `--force` and `--undo` share this rule.

A photo stays if it was changed since, and if it is the last name, or the last copy, of a photo whose original is gone
or has another content. Whatever the receipt does not name stays as well.
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

from ..errors import FacemillError, OutputExistsError
from ..files import TEMPORARY_SUFFIX, storage_error
from ..folders import MARK, check_folder, fill_folder
from ..tree import Tree, place_of
from .receipt import RECEIPT, STAGING, Kind, Line, Receipt
from .states import Comparison, State, is_own, page_state

_FOREIGN = "which facemill did not write there"
_CHANGED = "which was changed since facemill wrote it"
_LAST = "whose original is gone or has another content, so that it may be the last copy"


@dataclass(frozen=True, slots=True)
class Contents:
    """What the receipt of a folder names.

    Attributes:
        counts: number of its photos in each state.
        changed: photos and files that were changed since: paths below the folder.
        last: photos whose originals are gone, or have another content: paths below the folder.
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
    receipt.tree.sync()
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
    if os.path.lexists(path):
        with _naming_folder(path, kind), Tree(Path(os.path.realpath(path))) as folder:
            _refuse_what_stays(folder, path, kind)


@contextmanager
def receipt_folder(path: Path, kind: Kind, *, force: bool, like: Path) -> Iterator[Tree]:
    """Create a folder, or empty it by its receipt; the block fills it. After a kill the next call empties it again.

    Args:
        path, force, like: see `folders.fill_folder`.
        kind: its kind.
    Yields:
        The open folder; see `receipt.new_receipt`.
    Raises:
        ConfigError, OutputExistsError: see `check_receipt_folder`. Nothing was removed.
        LockedError: another process fills the folder.
        DiskFullError, StorageError: the folder cannot be filled.
    """
    check, clear = partial(_check_replaceable, path=path, kind=kind), partial(_clear, path=path, kind=kind)
    filling = fill_folder(path, kind.name, kind.all_entries, force=force, like=like, check=check, clear=clear)
    with filling as folder:
        yield folder


@contextmanager
def _naming_folder(folder: Path, kind: Kind) -> Iterator[None]:
    """Name the folder, or the one below it, that the system refuses."""
    try:
        yield
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, f"the folder for {kind.name}", place_of(err, folder)) from err


def _clear(folder: Tree, path: Path, kind: Kind) -> None:
    with _naming_folder(path, kind):
        if folder.status(RECEIPT) is not None:
            with Receipt(path / RECEIPT, kind, folder) as receipt:
                remove_contents(receipt)
                folder.unlink(RECEIPT)
        left = _names_in(folder)
    if left:
        raise OutputExistsError(
            f"{path} holds {min(left)!r}, which came there while the folder was emptied. Move that away, then "
            f"run the same command again"
        )


def _check_replaceable(folder: Tree, path: Path, kind: Kind) -> None:
    with _naming_folder(path, kind):
        _refuse_what_stays(folder, path, kind)


def _refuse_what_stays(folder: Tree, path: Path, kind: Kind) -> None:
    if folder.status(RECEIPT) is None:
        names = _names_in(folder)
        if names:
            raise OutputExistsError(
                f"{path} holds {min(names)!r} and no {RECEIPT}, by which facemill knows what it wrote there. "
                f"Look at the {kind.name}, delete them yourself, or name another folder"
            )
        return
    with Receipt(path / RECEIPT, kind, folder) as receipt:
        contents = check_contents(receipt)
        _refuse(path, {_FOREIGN: _foreign(receipt), _CHANGED: contents.changed, _LAST: contents.last})


def _names_in(folder: Tree) -> list[str]:
    return [name for name in folder.entries() if name.removesuffix(TEMPORARY_SUFFIX) != MARK]


def _refuse(folder: Path, reasons: dict[str, list[str]]) -> None:
    """Refuse the names that stay, with the reason for each group of names."""
    groups = [
        f"{min(names)!r}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''}, {reason}"
        for reason, names in reasons.items()
        if names
    ]
    if groups:
        raise OutputExistsError(
            f"{folder} holds {'; and '.join(groups)}. Nothing was removed. Move that away, or name another folder"
        )


def _contents(receipt: Receipt, *, remove: bool) -> Contents:
    contents, kind = Contents(), receipt.kind
    partials = _own_partials(receipt)  # before the page is removed that shows that no partial one is ours
    with Comparison(receipt) as comparison:
        folders, batch = list[str](), list[str]()
        if receipt.header is not None:
            folders, batch = _listed(comparison, contents, remove=remove)
        _staged(comparison, batch, contents, remove=remove)
    if remove:
        for name in partials:
            receipt.tree.unlink(name)
        for name in [*reversed(folders), *([kind.top] if kind.top else []), STAGING]:
            receipt.tree.rmdir(name)
    return contents


def _listed(comparison: Comparison, contents: Contents, *, remove: bool) -> tuple[list[str], list[str]]:
    """Look at the photos and pages of a receipt. Returns its folders, and the batch that was staged last."""
    receipt, folders, batch = comparison.receipt, list[str](), list[str]()
    for line in receipt.lines():
        if line.folder is not None:
            folders.append(receipt.kind.below(line.folder))
        batch = batch if line.batch is None else line.batch
        if line.photo is not None:
            name, state = receipt.kind.below(line.photo), comparison.photo(line)
            if remove:
                state = comparison.remove(name, state)
            contents.counts[state] += 1
        elif line.page is not None and line.written is not None:
            name, state = line.page, page_state(receipt, line.page, line.written)
            if remove and state is State.OURS:
                receipt.tree.unlink(name)
        else:
            continue
        contents.add(name, state)
    return folders, batch


def _staged(comparison: Comparison, batch: list[str], contents: Contents, *, remove: bool) -> None:
    """Look at the photos that a killed command had not moved to their places."""
    for number in list(comparison.receipt.tree.names(STAGING)):
        name, state = f"{STAGING}/{number}", comparison.staged(number, batch)
        contents.add(name, comparison.remove(name, state) if remove else state)


def _foreign(receipt: Receipt) -> list[str]:
    """Everything in the folder that the receipt does not name, apart from the staged photos."""
    names = {os.fsencode(name) for name in receipt.tree.names(".")}
    names = {name for name in names if not name.startswith(os.fsencode(STAGING) + b"/")}
    own = [MARK, MARK + TEMPORARY_SUFFIX, RECEIPT, *_own_partials(receipt)]
    own += [name for name in (STAGING, receipt.kind.top) if _is_folder(receipt, name)]
    for name in own:
        names.discard(os.fsencode(name))
    for line in receipt.lines():
        place = line.page or _place_of(receipt.kind, line)
        if place is not None:
            names.discard(os.fsencode(place))
    return [os.fsdecode(name) for name in names]


def _own_partials(receipt: Receipt) -> list[str]:
    """What a killed command has written of its last page or list, if anything."""
    begun = None
    for line in receipt.lines():
        begun = line.page or line.begun
    if begun is None or receipt.finished or receipt.tree.status(begun) is not None:
        return []
    partial_page = begun + TEMPORARY_SUFFIX
    return [partial_page] if is_own(receipt, partial_page) else []


def _place_of(kind: Kind, line: Line) -> str | None:
    place = line.folder if line.folder is not None else line.photo
    return None if place is None else kind.below(place)


def _is_folder(receipt: Receipt, name: str) -> bool:
    status = receipt.tree.status(name) if name else None
    return status is not None and stat.S_ISDIR(status.st_mode)
