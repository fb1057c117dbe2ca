"""The note of an unfinished removal, `<file>.removing`: facts about the removal, never an order.

A note may have been left by anybody who can write beside the file. It is read only if it is trusted, and only by its
schema. No path in it is written or deleted: the receipt goes where the command says, and pages to delete come from the
list of pages. Its paths only say which photos are meant, and which pages to name in the receipt.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import is_trusted, sync_folder, temporary_path, write_durable
from ..regular import read_regular
from ..schema import convert, parse_json
from .receipt import name_digest
from .selection import below, names_of

_MAX_BYTES = 1 << 30  # the digests of ten million names


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a removal before the old file is replaced; the receipt repeats it.

    Attributes:
        asked_hmac, removed_hmac: digests of names below `root`; names elsewhere are absolute.
        root: the folder of the photos when the removal began, because the file may get another one; empty in notes of
            earlier versions.
    """

    what: str
    file: str
    tool_version: str
    begun_utc: str
    asked_hmac: tuple[str, ...]
    removed_hmac: tuple[str, ...]
    removed_photographs: int
    removed_embeddings: int
    removed_as_duplicates: int
    same_files_stay: int
    names_not_found: int
    dropped_datasets: tuple[str, ...]
    other_names_of_file_before: int
    photographs_before: int
    embeddings_before: int
    run_id_before: str
    run_id_after: str
    removed: tuple[str, ...] | None = None
    root: str = ""

    def facts(self) -> dict[str, Any]:
        """The facts for the receipt, without names that were not asked for."""
        return {key: value for key, value in asdict(self).items() if key != "removed" or value is not None}


@dataclass(frozen=True, slots=True)
class Note:
    """The remaining work of a removal.

    Attributes:
        card: the facts.
        keep_pages: whether pages, lists and folders stay.
        key: of the digests of names, 64 hexadecimal digits.
        absent: pages that were not where facemill wrote them when the removal began.
        erased: pages that were deleted since.
        keep_runs: whether unfinished runs of the file stay.
    """

    card: Card
    keep_pages: bool
    key: str
    absent: tuple[str, ...] = ()
    erased: tuple[str, ...] = ()
    keep_runs: bool = False

    def digest(self, name: bytes) -> str:
        """The digest of a photo or folder, by its absolute path, as `asked_hmac` and `removed_hmac` hold it."""
        return name_digest(self.key, below(os.fsencode(self.card.root), name))

    def is_removed(self) -> Callable[[bytes], bool]:
        """Whether the removal is to remove a photo, by its absolute path: it was in the file, or is named."""
        root, removed = os.fsencode(self.card.root), frozenset((*self.card.removed_hmac, *self.card.asked_hmac))
        return lambda path: any(name_digest(self.key, name) in removed for name in names_of(below(root, path)))

    def is_done(self, root: bytes, paths: Iterable[bytes]) -> bool:
        """Whether a file has none of the photos that the removal is to remove; a note without a root cannot tell.

        Args:
            root, paths: of the file, whatever root it has now.
        """
        return bool(self.card.root) and not any(map(self.is_removed(), (os.path.join(root, path) for path in paths)))


def note_path(file: Path) -> Path:
    """`people.h5` -> `people.h5.removing`."""
    return file.with_name(file.name + ".removing")


def read_note(file: Path) -> tuple[Note | None, str]:
    """Read the note of an unfinished removal.

    Args:
        file: the real path of the embedding file.
    Returns:
        The note; None without one that can be followed. And why an existing note cannot be followed, else empty.
    Raises:
        StorageError: the disk refused to read it.
    """
    path = note_path(file)
    if not os.path.lexists(path):
        return None, ""
    if path.is_symlink() or not path.is_file() or not is_trusted(path, beside=file):
        return None, "another user may have written this note of a removal, so it was not followed"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES:,} bytes")
        note = convert(parse_json(read_regular(path, _MAX_BYTES)), Note, unknown=True)
        bytes.fromhex(note.key)
        return note, ""
    except (ValueError, RecursionError) as err:
        return None, f"this note of a removal is damaged and was not followed ({err!s:.200})"
    except OSError as err:
        advice = "Make it readable" if err.errno == errno.EACCES else "Check the disk"
        raise StorageError(
            f"the note of an unfinished removal, {path}, cannot be read: {err.strerror}. {advice}, and run the same "
            f"command again"
        ) from err


def write_note(file: Path, note: Note) -> None:
    """Write the note durably, before the new file appears.

    Raises:
        DiskFullError, StorageError: it cannot be written.
    """
    data = json.dumps({**asdict(note), "card": note.card.facts()}).encode()
    write_durable(note_path(file), data, "the note of the removal", like=file)


def drop_note(file: Path) -> None:
    """Delete the note, and what a power cut left of a new one: the removal is finished."""
    for path in (note_path(file), temporary_path(note_path(file))):
        path.unlink(missing_ok=True)
    sync_folder(file.parent)
