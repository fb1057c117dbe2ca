"""Put the photos that a filter selects into a folder, with a list and a receipt that undoes it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..attributes.selection import AttributeFilter
from ..clusters.placing import Place, Placed, placer, placing_error
from ..errors import ConfigError
from ..files import make_folder, sync_folder, synced_file
from ..folders import check_folder, fill_folder
from ..progress import Listener, track
from ..storage.derived import record_page, record_start
from ..storage.digest import DIGEST_ATTRIBUTE
from ..storage.file import EmbeddingFile
from .lists import write_lines
from .receipt import KIND, LIST, PHOTOS, RECEIPT, read_receipt, state_of, was_new

_ENTRIES = rf"{PHOTOS}|photos\.csv|receipt\.jsonl"
_ROWS_PER_READ = 10_000


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What `write_folders` wrote.

    Attributes:
        photos: number of photos.
        missing: photos that do not exist any more.
        refused: photos that were not copied or linked: a link stands in their path, or they are no photos any more.
        receipt: the file that undoes it.
        already: whether an earlier call with the same options wrote it, and nothing was done now.
    """

    photos: int
    missing: int
    refused: int
    receipt: str
    already: bool = False


def check_folders(path: Path, *, force: bool) -> None:
    """Check, before the work, that the folder can be filled; see `folders.check_folder`."""
    check_folder(path, KIND, _ENTRIES, force=force)


def find_written(
    path: Path, gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool = False
) -> FolderFacts | None:
    """Find what an earlier call with these options wrote, if the file and every photo in the folder are unchanged.

    Args:
        path, gallery, chosen, mode, csv_safe: see `write_folders`.
    """
    receipt = path / RECEIPT
    expected, photos = _header(gallery, chosen, mode=mode, csv_safe=csv_safe), 0
    try:
        entries = read_receipt(receipt)
        header = next(entries)
        if {**header, **expected} != header:
            return None
        for entry in entries:
            if "missing" in entry and (path / LIST).exists():
                return FolderFacts(photos, entry["missing"], entry["refused"], str(receipt), already=True)
            if "photo" in entry:
                if state_of(path / PHOTOS / entry["photo"], path / PHOTOS, entry["seen"], mode) != "ours":
                    return None
                photos += 1
    except ConfigError:
        pass
    return None


def _header(gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool) -> dict[str, object]:
    """What decides on the content of a folder, besides the photos themselves."""
    return {
        "kind": KIND,
        "mode": mode,
        "filter": str(chosen),
        "csv_safe": csv_safe,
        "file": os.path.abspath(gallery.path),
        "run_id": str(gallery.metadata["run_id"]),
        "content": str(gallery.metadata.get(DIGEST_ATTRIBUTE, "")),
    }


def write_folders(
    path: Path,
    gallery: EmbeddingFile,
    rows: NDArray[np.int64],
    chosen: AttributeFilter,
    *,
    mode: str,
    force: bool = False,
    csv_safe: bool = False,
    listener: Listener | None = None,
) -> FolderFacts:
    """Fill a folder with `photos/`, the photos under their paths below the root; `photos.csv`; and `receipt.jsonl`.

    A photo is placed once, however many of its faces are selected. How photos are opened, and whose the copies are, is
    as for `clusters.folders.write_folders`.

    Args:
        path: the folder; see `folders.fill_folder`.
        gallery: the open file.
        rows: (n,) ascending rows.
        chosen: the filter that selected them, for the receipt.
        mode: one of `placing.MODES`.
        force: replace the content of the folder, if facemill wrote it.
        csv_safe: write no text in the list that a spreadsheet takes for a formula.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        ConfigError: hard links are not possible there.
        OutputExistsError: the folder holds something else, or `force` is false.
        StorageError, DiskFullError: the folder cannot be written.
    """
    new = not path.exists() or was_new(path)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=gallery.path):
        record_start(gallery, path)
        try:
            with synced_file(path / RECEIPT, like=gallery.path) as receipt:
                header = _header(gallery, chosen, mode=mode, csv_safe=csv_safe)
                _write_line(receipt, {"facemill": __version__, "new": new, **header})
                counts = _fill(path, gallery, rows, placer(mode, gallery), receipt, listener)
                written, missing, refused = (counts[kind] for kind in (Placed.WRITTEN, Placed.MISSING, Placed.REFUSED))
                _write_line(receipt, {"missing": missing, "refused": refused})
            with synced_file(path / LIST, like=gallery.path) as file:
                write_lines(file, gallery, rows, csv_safe=csv_safe)
            sync_folder(path)
        except OSError as err:
            raise placing_error(err, "the folder of photos", path, mode) from err
    record_page(gallery, path)
    return FolderFacts(written, missing, refused, str(path / RECEIPT))


def _write_line(receipt: IO[bytes], facts: dict[str, object]) -> None:
    receipt.write(json.dumps(facts).encode("ascii") + b"\n")


def _fill(
    path: Path,
    gallery: EmbeddingFile,
    rows: NDArray[np.int64],
    place: Place,
    receipt: IO[bytes],
    listener: Listener | None,
) -> Counter[Placed]:
    counts: Counter[Placed] = Counter()
    top = path / PHOTOS
    folders = {b""}
    make_folder(top, like=gallery.path)
    first = rows[np.unique(gallery.photo_numbers()[rows], return_index=True)[1]]
    blocks = [first[start : start + _ROWS_PER_READ] for start in range(0, len(first), _ROWS_PER_READ)]
    for block in track(blocks, "photos", len(first), unit="photos", listener=listener):
        for name in gallery.photo_names(block.tolist()):
            for parent in _parents(name):
                if parent not in folders:
                    make_folder(_below(top, parent), like=gallery.path)
                    folders.add(parent)
                    _write_line(receipt, {"folder": os.fsdecode(parent)})
            target = _below(top, name)
            outcome = place(name, os.fsencode(target))
            counts[outcome] += 1
            if outcome is Placed.WRITTEN:
                status = os.lstat(target)
                seen = [status.st_ino, status.st_size, status.st_mtime_ns]
                _write_line(receipt, {"photo": os.fsdecode(name), "seen": seen})
    for parent in folders:
        sync_folder(_below(top, parent))  # before the mark that says that all is there
    return counts


def _parents(name: bytes) -> Iterator[bytes]:
    """The folders of a path, the outermost first."""
    parts = name.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        yield b"/".join(parts[:count])


def _below(top: Path, name: bytes) -> Path:
    return top / os.fsdecode(name) if name else top
