"""The receipt of a folder of filtered photos: a header, then a line of JSON for each folder and photo in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.layout import is_relative

KIND = "filtered photos"
PHOTOS, LIST, RECEIPT = "photos", "photos.csv", "receipt.jsonl"  # the content of the folder


def read_receipt(receipt: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a receipt: the header, then folders and photos.

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
