"""Put the photos that a filter selects into a folder, with a list and a receipt that undoes it."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

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
from .receipt import KIND, LIST, PHOTOS, RECEIPT, STAGING, End, Header, Line, Receipt, line_of, list_digest, was_new
from .undo import State, check_replaceable, clear_folder, remove_written, state_of

_ENTRIES = rf"{PHOTOS}|photos\.csv|receipt\.jsonl"
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
    """Check, before the work, that the folder can be filled; see `folders.check_folder`, `undo.check_replaceable`."""
    check_folder(path, KIND, _ENTRIES, force=force)
    if path.exists():
        check_replaceable(path)


def find_written(
    path: Path, gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool = False
) -> FolderFacts | None:
    """Find what an earlier call with these options wrote, if the file and every photo in the folder are unchanged.

    Args:
        path, gallery, chosen, mode, csv_safe: see `write_folders`.
    """
    expected = _header(gallery, chosen, mode=mode, csv_safe=csv_safe)
    try:
        with Receipt(path / RECEIPT) as receipt:
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
    tree, photos = receipt.tree, 0
    with tree.open_own(LIST) as file:
        if list_digest(file) != end.list:
            return False
    for line in receipt.lines():
        if line.photo is None or line.seen is None:
            continue
        if state_of(tree, line.photo, line.seen, header) not in (State.OURS, State.LAST):
            return False
        status = os.stat(tree.path / PHOTOS / line.photo)  # follows a link, whose photo must be there
        if header.mode == "hardlink" and (status.st_size, status.st_mtime_ns) != line.seen[1:]:
            return False
        photos += 1
    return photos == end.photos


def _header(gallery: EmbeddingFile, chosen: AttributeFilter, *, mode: str, csv_safe: bool, new: bool = False) -> Header:
    """What decides on the content of a folder, besides the photos themselves."""
    return Header(
        kind=KIND,
        mode=cast(Any, mode),
        filter=str(chosen),
        csv_safe=csv_safe,
        file=os.path.abspath(gallery.path),
        run_id=str(gallery.metadata["run_id"]),
        content=str(gallery.metadata.get(DIGEST_ATTRIBUTE, "")),
        root=os.path.abspath(os.fsdecode(gallery.root)),
        new=new,
        facemill=__version__,
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
    header = _header(gallery, chosen, mode=mode, csv_safe=csv_safe, new=new)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=gallery.path, clear=clear_folder):
        record_start(gallery, path)
        try:
            with synced_file(path / RECEIPT, like=gallery.path) as receipt:
                receipt.write(line_of(header))
                _sync(receipt)
                counts = _fill(path, gallery, rows, placer(mode, gallery), receipt, listener)
                written, missing, refused = (counts[kind] for kind in (Placed.WRITTEN, Placed.MISSING, Placed.REFUSED))
                with synced_file(path / LIST, like=gallery.path) as file:
                    write_lines(file, gallery, rows, csv_safe=csv_safe)
                    digest = list_digest(file)
                receipt.write(line_of(Line(end=End(written, missing, refused, digest))))
            sync_folder(path)
        except OSError as err:
            problem = placing_error(err, "the folder of photos", path, mode)
            if isinstance(problem, ConfigError):  # the same command cannot succeed: leave nothing of it
                with Receipt(path / RECEIPT) as begun:
                    remove_written(begun)
            raise problem from err
    record_page(gallery, path)
    return FolderFacts(written, missing, refused, str(path / RECEIPT))


def _sync(receipt: IO[bytes]) -> None:
    receipt.flush()
    os.fsync(receipt.fileno())


def _fill(
    path: Path,
    gallery: EmbeddingFile,
    rows: NDArray[np.int64],
    place: Place,
    receipt: IO[bytes],
    listener: Listener | None,
) -> Counter[Placed]:
    """Place the photos in batches: first under numbers in the staging folder, then their lines in the receipt, and when
    these are on the disk, each photo in its place. So a killed run has placed nothing that its receipt does not name.
    """
    counts: Counter[Placed] = Counter()
    top, staging = path / PHOTOS, path / STAGING
    folders = {b""}
    make_folder(staging, like=gallery.path)
    make_folder(top, like=gallery.path)
    first = rows[np.unique(gallery.photo_numbers()[rows], return_index=True)[1]]
    blocks = [first[start : start + _ROWS_PER_BATCH] for start in range(0, len(first), _ROWS_PER_BATCH)]
    for block in track(blocks, "photos", len(first), unit="photos", listener=listener):
        staged: list[bytes] = []
        for name in gallery.photo_names(block.tolist()):
            outcome = place(name, os.fsencode(staging / str(len(staged))))
            counts[outcome] += 1
            if outcome is Placed.WRITTEN:
                staged.append(name)
        parents = dict.fromkeys(parent for name in staged for parent in _parents(name) if parent not in folders)
        receipt.writelines(line_of(Line(folder=os.fsdecode(parent))) for parent in parents)
        for number, name in enumerate(staged):
            status = os.lstat(staging / str(number))
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            receipt.write(line_of(Line(photo=os.fsdecode(name), seen=seen)))
        _sync(receipt)
        for parent in parents:
            make_folder(_below(top, parent), like=gallery.path)
        folders.update(parents)
        for number, name in enumerate(staged):
            _move(staging / str(number), _below(top, name))
    for parent in folders:
        sync_folder(_below(top, parent))  # before the mark that says that all is there
    staging.rmdir()
    return counts


def _move(photo: Path, place: Path) -> None:
    if os.path.lexists(place):  # where names differ only in case, or somebody put a file there
        raise OSError(errno.EEXIST, "a file of that name is there", str(place))
    os.rename(photo, place)


def _parents(name: bytes) -> Iterator[bytes]:
    """The folders of a path, the outermost first."""
    parts = name.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        yield b"/".join(parts[:count])


def _below(top: Path, name: bytes) -> Path:
    return top / os.fsdecode(name) if name else top
