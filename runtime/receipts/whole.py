"""Whether a folder may be deleted as a whole, when the photos that it shows are removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import FacemillError
from .kinds import KINDS
from .receipt import RECEIPT, Line, Receipt
from .states import Comparison, State, page_state

_REASONS = {
    State.CHANGED: "was changed since facemill put it there",
    State.LAST: "is the last copy of a photo: its original is gone, or has another content",
}


def why_not_whole(folder: Path, is_removed: Callable[[bytes], bool]) -> str:
    """Why a folder must stay by its receipt; empty if it may go, or has no receipt.

    Args:
        folder: an absolute path.
        is_removed: whether a photo, by its path below the root, is one of those that are removed: of these no copy need
            stay.
    Raises:
        OSError: the folder cannot be read.
    """
    if not os.path.lexists(folder / RECEIPT):
        return ""
    error = ""
    for kind in KINDS:
        try:
            with Receipt(folder / RECEIPT, kind) as receipt:
                return _first_reason(receipt, is_removed)
        except FacemillError as err:
            error = error or f"its receipt cannot be used: {err.message}"
    return error


def _first_reason(receipt: Receipt, is_removed: Callable[[bytes], bool]) -> str:
    if receipt.header is None:
        return ""
    with Comparison(receipt, copied=True) as comparison:
        for line in receipt.lines():
            name, state = _state(comparison, line)
            if state is State.LAST and is_removed(os.fsencode(line.original or line.photo or "")):
                continue
            if state in _REASONS:
                return f"{name} in it {_REASONS[state]}"
    return ""


def _state(comparison: Comparison, line: Line) -> tuple[str, State]:
    receipt = comparison.receipt
    if line.photo is not None:
        return receipt.kind.below(line.photo), comparison.photo(line)
    if line.page is not None and line.written is not None:
        return line.page, page_state(receipt, line.page, line.written)
    return "", State.GONE
