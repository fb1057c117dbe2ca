"""Undo a folder of filtered photos: remove what its receipt names, and nothing else."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import FacemillError
from ..files import storage_error, sync_folder
from ..folders import remove_mark
from ..locks import Lock
from ..storage.derived import forget_page
from .receipt import LIST, PHOTOS, is_below, read_receipt, state_of


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of undoing a folder.

    Attributes:
        folder: the folder.
        removed: photos (links or copies) that were removed.
        gone: photos that were gone already.
        kept: photos that were changed since, or whose original is gone, and so stay; the receipt stays with them.
    """

    folder: str
    removed: int
    gone: int
    kept: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def undo(receipt: Path) -> Undone:
    """Remove the links, copies, list and folders that a filter wrote. What others put there, or changed, stays.

    After a kill the same call goes on.

    Args:
        receipt: `receipt.jsonl` in the folder.
    Raises:
        ConfigError: the file is not such a receipt.
        LockedError: another process writes the folder.
        StorageError: something cannot be removed; the same call goes on.
    """
    folder = receipt.resolve().parent
    header = next(read_receipt(receipt))
    for _ in read_receipt(receipt):  # a damaged receipt is refused before anything is removed
        pass
    try:
        with Lock(folder, f"another process is writing {folder}", folder=True):
            return _undo(receipt, folder, header)
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, "the folder of photos", folder) from err


def _undo(receipt: Path, folder: Path, header: dict[str, Any]) -> Undone:
    top, counts, kept, folders = folder / PHOTOS, Counter[str](), list[str](), list[Path]()
    for entry in islice(read_receipt(receipt), 1, None):
        if "folder" in entry:
            folders.append(top / entry["folder"])
        if "photo" not in entry:
            continue
        path = top / entry["photo"]
        state = state_of(path, top, entry["seen"], str(header.get("mode")))
        counts[state] += 1
        if state == "ours":
            path.unlink()
        elif state == "other":
            kept.append(entry["photo"])
    for made in (*reversed(folders), top):
        with suppress(OSError):  # it is gone, or holds something that stays
            if not made.is_symlink() and is_below(made, top):
                made.rmdir()
    if not kept:
        _forget(receipt, folder, header)
    return Undone(str(folder), counts["ours"], counts["gone"], tuple(kept))


def _forget(receipt: Path, folder: Path, header: dict[str, Any]) -> None:
    """Remove what describes the folder, the receipt last, and the folder itself if the filter created it."""
    (folder / LIST).unlink(missing_ok=True)
    file = Path(str(header.get("file", "")))
    if file.is_file():
        forget_page(file, folder)
    remove_mark(folder)
    receipt.unlink()
    sync_folder(folder)
    if header.get("new"):
        with suppress(OSError):  # somebody put something into it
            folder.rmdir()
            sync_folder(folder.parent)
