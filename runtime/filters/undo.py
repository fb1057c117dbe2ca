"""Undo a folder of filtered photos by its receipt."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FacemillError
from ..files import storage_error, sync_folder
from ..folders import MARK
from ..locks import Lock
from ..receipts.clear import remove_contents
from ..receipts.receipt import RECEIPT, STAGING, Receipt
from ..receipts.states import State
from ..storage.derived import forget_page
from ..tree import place_of
from .kind import KIND, LIST, PHOTOS


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of undoing a folder.

    Attributes:
        folder: the folder.
        removed: photos (links or copies) that were removed.
        gone: photos that were gone already.
        kept: photos that stay, and the receipt with them: they were changed since, or are in `last`. Also the list, if
            it was changed.
        last: photos that stay because their original is gone, or has another content: the last copy, or the last name.
        already: whether the folder was empty: an earlier call has undone it.
    """

    folder: str
    removed: int
    gone: int
    kept: tuple[str, ...]
    last: tuple[str, ...] = ()
    already: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def undo(path: Path) -> Undone:
    """Remove the links, copies, list and folders that a filter wrote. What others put there, or changed, stays.

    After a kill the same call goes on; if only the empty folder is left, it says so and leaves it. The receipt of a
    killed filter can be undone.

    Args:
        path: `receipt.jsonl` in the folder. Neither it nor a folder below its own may be a symbolic link.
    Raises:
        ConfigError: the file is not such a receipt, or the folder has lost its mark.
        LockedError: another process writes the folder.
        StorageError: something cannot be removed; the same call goes on.
    """
    if path.name == RECEIPT and _is_empty(path.parent):  # a kill came between the receipt and the folder
        return Undone(os.path.realpath(path.parent), 0, 0, (), already=True)
    with Receipt(path, KIND) as receipt:
        folder = receipt.tree.path
        try:
            with Lock(folder, f"another process is writing {folder}", folder=True):
                return remove_written(receipt)
        except OSError as err:
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, "the folder of photos", place_of(err, folder)) from err


def _is_empty(folder: Path) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False


def remove_written(receipt: Receipt) -> Undone:
    """Undo a folder that is locked by this process; see `undo`."""
    receipt.end()  # a damaged receipt is refused first
    tree = receipt.tree
    if not receipt.marked and any(tree.status(name) is not None for name in (PHOTOS, STAGING, LIST)):
        raise ConfigError(
            f"{tree.path} has no file {MARK} of this user for filtered photos, which facemill writes beside the "
            f"receipt; expected: the folder as facemill filter left it. Nothing was removed"
        )
    contents = remove_contents(receipt)
    kept, last = (
        tuple(name.removeprefix(f"{PHOTOS}/") for name in names)
        for names in ([*contents.changed, *contents.last], contents.last)
    )
    if not kept:
        _forget(receipt)
    return Undone(str(tree.path), contents.counts[State.OURS], contents.counts[State.GONE], kept, last)


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
