"""The receipt of a folder of filtered photos: a header, a line of JSON for each folder and photo in it, and an end."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.layout import is_relative

KIND = "filtered photos"
PHOTOS, LIST, RECEIPT = "photos", "photos.csv", "receipt.jsonl"  # the content of the folder


def read_receipt(receipt: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a receipt: the header, folders and photos, and the end, which receipts of killed runs lack.

    Raises:
        ConfigError: it is none.
    """
    try:
        with receipt.open(encoding="ascii") as file:
            number = 0
            for number, line in enumerate(file, 1):
                yield _checked(number, json.loads(line))
            if not number:
                raise ValueError("it is empty")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise ConfigError(
            f"{receipt} is no receipt of facemill filter ({err}); expected: the {RECEIPT} in the folder that --folders "
            f"named"
        ) from err


def _checked(number: int, entry: Any) -> dict[str, Any]:
    if number == 1:
        right = entry["kind"] == KIND
    elif "missing" in entry:
        right = isinstance(entry["missing"], int) and isinstance(entry["refused"], int)
    else:
        right = is_relative(os.fsencode(entry.get("folder", entry.get("photo"))))
        right &= "folder" in entry or (len(entry["seen"]) == 3 and all(isinstance(each, int) for each in entry["seen"]))
    if not right:
        raise ValueError(f"line {number} is wrong")
    return dict(entry)


def was_new(folder: Path) -> bool:
    """Whether an earlier filter created this folder, by the receipt in it."""
    try:
        return bool(next(read_receipt(folder / RECEIPT)).get("new"))
    except ConfigError:
        return False


def state_of(path: Path, top: Path, seen: list[int], mode: str) -> str:
    """What is at the place of a photo: "ours", as it was written; "gone"; or "other".

    Args:
        path: the place.
        top: the folder of all photos.
        seen: inode, size and time of change, by the receipt.
        mode: how the photo was placed, by the receipt.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    if not is_below(path, top) or stat.S_ISDIR(status.st_mode) or status.st_ino != seen[0]:
        return "other"
    if mode == "hardlink":  # the photo may have been edited, but its last name must stay
        return "ours" if status.st_nlink > 1 else "other"
    return "ours" if [status.st_size, status.st_mtime_ns] == seen[1:] else "other"


def is_below(path: Path, top: Path) -> bool:
    """Whether no link leads out of the folder on the way to a path."""
    return path == top or path.parent.resolve() == top.resolve() / path.parent.relative_to(top)
