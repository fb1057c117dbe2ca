"""Put the photos that a filter selects into a folder, with a list and a receipt that undoes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..attributes.selection import AttributeFilter
from ..errors import ConfigError
from ..progress import Listener, track
from ..receipts.clear import check_receipt_folder, receipt_folder
from ..receipts.fill import Batch, listed_file, place_photos
from ..receipts.placing import Placed, placing_error
from ..receipts.receipt import RECEIPT, End, Header, Line, Receipt, header_of, new_receipt, write_lines
from ..receipts.states import Comparison, State, page_state
from ..storage.derived import record_page, record_start
from ..storage.digest import DIGEST_ATTRIBUTE
from ..storage.file import EmbeddingFile
from .kind import KIND, LIST, PHOTOS
from .lists import write_rows
from .undo import remove_written

_ROWS_PER_BATCH = 10_000


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
    """Check, before the work, that the folder can be filled; see `clear.check_receipt_folder`."""
    check_receipt_folder(path, KIND, force=force)


def find_written(
    path: Path, gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool = False
) -> FolderFacts | None:
    """Find what an earlier call with these options wrote, if the file and every photo in the folder are unchanged.

    Args:
        path, gallery, chosen, mode, csv_safe: see `write_folders`.
    """
    expected = _header(gallery, chosen, mode=mode, csv_safe=csv_safe)
    try:
        with Receipt(path / RECEIPT, KIND) as receipt:
            header, end = receipt.header, receipt.end()
            if header is None or end is None or replace(header, new=expected.new) != expected:
                return None
            if not receipt.finished or not _is_unchanged(receipt, header, end):
                return None
            return FolderFacts(end.photos, end.missing, end.refused, str(path / RECEIPT), already=True)
    except (ConfigError, OSError):
        return None  # whatever it is, `check_folders` says more


def _is_unchanged(receipt: Receipt, header: Header, end: End) -> bool:
    """Whether the list and all photos are there, as they were written."""
    photos = lists = 0
    with Comparison(receipt) as comparison:
        for line in receipt.lines():
            if line.page is not None and line.written is not None:
                if page_state(receipt, line.page, line.written) is not State.OURS:
                    return False
                lists += 1
            if line.photo is None or line.seen is None:
                continue
            if comparison.photo(line) not in (State.OURS, State.LAST):
                return False
            status = os.stat(receipt.tree.path / PHOTOS / line.photo)  # follows a link, whose photo must be there
            if header.mode == "hardlink" and (status.st_size, status.st_mtime_ns) != line.seen[1:]:
                return False
            photos += 1
    return (photos, lists) == (end.photos, 1)


def _header(gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool, new: bool = False) -> Header:
    """What decides on the content of a folder, besides the photos themselves."""
    return replace(
        header_of(KIND, gallery, mode=mode),
        filter=str(chosen),
        csv_safe=csv_safe,
        run_id=str(gallery.metadata["run_id"]),
        content=str(gallery.metadata.get(DIGEST_ATTRIBUTE, "")),
        new=new,
    )


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
        path: the folder; see `clear.receipt_folder`.
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
    new = not path.exists() or _was_new(path)
    header = _header(gallery, chosen, mode=mode, csv_safe=csv_safe, new=new)
    with receipt_folder(path, KIND, force=force, like=gallery.path) as folder:
        record_start(gallery, path)
        try:
            with new_receipt(folder, header, like=gallery.path) as receipt:
                batches = _batches(gallery, rows, listener)
                counts = place_photos(receipt, gallery, batches, mode=mode, top=PHOTOS)
                written, missing, refused = (counts[kind] for kind in (Placed.WRITTEN, Placed.MISSING, Placed.REFUSED))
                with listed_file(LIST, receipt, like=gallery.path) as file:
                    write_rows(file, gallery, rows, csv_safe=csv_safe)
                write_lines(receipt, [Line(end=End(written, missing, refused))])
                receipt.tree.sync()
        except OSError as err:
            problem = placing_error(err, "the folder of photos", path, mode)
            if isinstance(problem, ConfigError):  # the same command cannot succeed: leave nothing of it
                with Receipt(path / RECEIPT, KIND, folder) as begun:
                    remove_written(begun)
            raise problem from err
    record_page(gallery, path)
    return FolderFacts(written, missing, refused, str(path / RECEIPT))


def _batches(gallery: EmbeddingFile, rows: NDArray[np.int64], listener: Listener | None) -> Iterator[Batch]:
    """The photos of rows, each once, under their paths below the root."""
    first = rows[np.unique(gallery.photo_numbers()[rows], return_index=True)[1]]
    blocks = [first[start : start + _ROWS_PER_BATCH] for start in range(0, len(first), _ROWS_PER_BATCH)]
    for block in track(blocks, "photos", len(first), unit="photos", listener=listener):
        yield [(name, name) for name in gallery.photo_names(block.tolist())]


def _was_new(folder: Path) -> bool:
    """Whether an earlier filter created this folder, by the receipt in it."""
    try:
        with Receipt(folder / RECEIPT, KIND) as receipt:
            return receipt.header is not None and receipt.header.new
    except ConfigError:
        return False
