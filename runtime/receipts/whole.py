"""What is erased of a folder when photos that it shows are removed: all of it, or the removed photos and the pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, FacemillError, LockedError
from ..locks import Lock
from .kinds import KINDS
from .receipt import RECEIPT, STAGING, Line, Receipt
from .states import Comparison, State, page_state

# Whether a photo, by its absolute path, is one of those that are removed.
IsRemoved = Callable[[bytes], bool]

_REASONS = {
    State.CHANGED: "was changed since facemill put it there",
    State.LAST: "is the last copy of a photo: its original is gone, or has another content",
}


def why_not_whole(folder: Path, is_removed: IsRemoved) -> str:
    """Why a folder must stay by its receipt; empty if it may go, or has no receipt.

    Args:
        folder: an absolute path.
        is_removed: of these photos no copy need stay.
    Raises:
        OSError: the folder cannot be read.
    """
    if not os.path.lexists(folder / RECEIPT):
        return ""
    try:
        with _opened(folder) as receipt:
            return _first_reason(receipt, is_removed)
    except FacemillError as err:
        return f"its receipt cannot be used: {err.message}"


def changed_parts(folder: Path, is_removed: IsRemoved) -> list[str]:
    """What is in the places of removed photos in a folder that stays, and may not be erased.

    Returns:
        Paths below the folder; none where the receipt cannot be used.
    Raises:
        OSError: the folder cannot be read.
    """
    try:
        with _opened(folder) as receipt:
            return [name for name, is_ours in _parts(receipt, is_removed) if not is_ours]
    except ConfigError:
        return []


def erase_parts(folder: Path, is_removed: IsRemoved) -> int:
    """Erase the removed photos and all pages from a folder that stays, if its receipt proves that nobody changed them.

    A folder that another process fills is left: that process sees that the file was replaced, and deletes the folder.

    Returns:
        How many files were erased; durably.
    Raises:
        OSError: the folder cannot be read, or something in it cannot be erased.
    """
    count = 0
    try:
        with _opened(folder) as receipt, Lock(folder, f"another process is writing {folder}", folder=True):
            touched = dict[str, None]()
            for name, is_ours in _parts(receipt, is_removed):
                if is_ours:
                    receipt.tree.unlink(name)
                    touched[os.path.dirname(name)] = None
                    count += 1
            for parent in touched:
                receipt.tree.sync(parent)
    except (ConfigError, LockedError):
        pass
    return count


@contextmanager
def _opened(folder: Path) -> Iterator[Receipt]:
    """Open the receipt of a folder of any kind.

    Raises:
        ConfigError: it is no receipt.
    """
    error: ConfigError | None = None
    for kind in KINDS:
        try:
            receipt = Receipt(folder / RECEIPT, kind)
        except ConfigError as err:
            error = error or err
            continue
        with receipt:
            yield receipt
        return
    assert error is not None
    raise error


def _first_reason(receipt: Receipt, is_removed: IsRemoved) -> str:
    if receipt.header is None:
        return ""
    with Comparison(receipt, copied=True) as comparison:
        for line in receipt.lines():
            name, state = _state(comparison, line)
            if state is State.LAST and is_removed(_original(receipt, line.original or line.photo or "")):
                continue
            if state in _REASONS:
                return f"{name} in it {_REASONS[state]}"
    return ""


def _parts(receipt: Receipt, is_removed: IsRemoved) -> Iterator[tuple[str, bool]]:
    """What is left in the places of removed photos and of pages: paths below the folder, and whether they are ours."""
    if receipt.header is None:
        return
    receipt.end()  # a damaged receipt is refused before anything is erased
    with Comparison(receipt, copied=True) as comparison:
        batch = list[str]()
        for line in receipt.lines():
            batch = batch if line.batch is None else line.batch
            if line.photo is not None and not is_removed(_original(receipt, line.original or line.photo)):
                continue
            name, state = _state(comparison, line)
            if state is not State.GONE:
                yield name, state is State.OURS or (state is State.LAST and _has_size_and_time(receipt, name, line))
        for number in list(receipt.tree.names(STAGING)):
            is_staged = number.isdecimal() and int(number) < len(batch)
            if is_staged and is_removed(_original(receipt, batch[int(number)])):
                yield f"{STAGING}/{number}", comparison.staged(number, batch) is State.OURS


def _has_size_and_time(receipt: Receipt, name: str, line: Line) -> bool:
    """Whether a last hard link, which counts as ours after an edit too, is as it was placed."""
    status = receipt.tree.status(name)
    return status is None or line.seen is None or (status.st_size, status.st_mtime_ns) == line.seen[1:]


def _original(receipt: Receipt, photo: str) -> bytes:
    """The absolute path of the original of a photo."""
    assert receipt.header is not None
    return os.fsencode(os.path.join(receipt.header.root, photo))


def _state(comparison: Comparison, line: Line) -> tuple[str, State]:
    receipt = comparison.receipt
    if line.photo is not None:
        return receipt.kind.below(line.photo), comparison.photo(line)
    if line.page is not None and line.written is not None:
        return line.page, page_state(receipt, line.page, line.written)
    return "", State.GONE
