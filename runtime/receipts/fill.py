"""Fill a folder by its receipt: a killed command has put nothing there that the receipt does not name."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..files import NewFile, make_folder, sync_folder, write_durable
from ..storage.file import EmbeddingFile
from .placing import Placed, placer
from .receipt import STAGING, Line, digest_of, write_lines

# The photos of a batch: each with its name below the root, and its name below the top.
Batch = Sequence[tuple[bytes, bytes]]


def place_photos(
    folder: Path,
    top: Path,
    receipt: IO[bytes],
    gallery: EmbeddingFile,
    batches: Iterable[Batch],
    *,
    mode: str,
    folders: Sequence[bytes] = (),
    free_name: Callable[[bytes], bytes] = bytes,
) -> Counter[Placed]:
    """Place photos in batches: first under numbers in the staging folder, then their lines in the receipt, and when
    these are on the disk, each photo in its place.

    Args:
        folder: the folder with the receipt.
        top: the folder of the photos: `folder`, or a folder in it.
        receipt: see `receipt.new_receipt`.
        gallery: the open embedding file.
        batches: the photos.
        mode: one of `placing.MODES`.
        folders: folders below the top that are made in any case, the outermost first.
        free_name: the name to take for a name below the top that may be taken.
    Returns:
        How many photos were placed, missing and refused.
    Raises:
        OSError: a photo cannot be placed, or its name is taken.
    """
    counts: Counter[Placed] = Counter()
    place, like = placer(mode, gallery), gallery.path
    staging, made = folder / STAGING, dict.fromkeys((b"", *folders))
    write_lines(receipt, (Line(folder=os.fsdecode(name)) for name in folders))
    make_folder(staging, like=like)
    for name in made:
        make_folder(_below(top, name), like=like)
    for batch in batches:
        if mode != "symlink":  # the only copy, or name, of a photo may be staged: its original must be known
            write_lines(receipt, [Line(batch=[os.fsdecode(photo) for photo, _ in batch])])
        staged: list[tuple[int, bytes]] = []
        lines: list[Line] = []
        for number, (photo, name) in enumerate(batch):
            outcome = place(photo, os.fsencode(staging / str(number)))
            counts[outcome] += 1
            if outcome is Placed.WRITTEN:
                staged.append((number, free_name(name)))
                lines.append(_photo_line(staging / str(number), photo, staged[-1][1]))
        parents = dict.fromkeys(parent for _, name in staged for parent in _parents(name) if parent not in made)
        write_lines(receipt, [*(Line(folder=os.fsdecode(parent)) for parent in parents), *lines])
        for parent in parents:
            make_folder(_below(top, parent), like=like)
        made |= parents
        for number, name in staged:
            _move(staging / str(number), _below(top, name))
    for name in made:
        sync_folder(_below(top, name))  # before the mark that says that all is there
    staging.rmdir()
    return counts


def write_page(path: Path, data: bytes, what: str, receipt: IO[bytes], *, like: Path) -> None:
    """Write a page beside its receipt, which names it first. See `files.write_durable` for the arguments and errors."""
    write_lines(receipt, [Line(page=path.name, written=(len(data), hashlib.sha256(data).hexdigest()))])
    write_durable(path, data, what, like=like)


@contextmanager
def listed_file(path: Path, receipt: IO[bytes], *, like: Path) -> Iterator[IO[bytes]]:
    """Open a new list beside its receipt; it gets its name when the receipt says what is in it.

    Args:
        path: the list.
        receipt: see `receipt.new_receipt`.
        like: see `files.NewFile`.
    Raises:
        OSError: the list cannot be written.
    """
    write_lines(receipt, [Line(begun=path.name)])
    with NewFile(path, like=like) as new:
        yield new.file
        write_lines(receipt, [Line(page=path.name, written=digest_of(new.file))])
        new.commit()


def _photo_line(staged: Path, photo: bytes, name: bytes) -> Line:
    status = os.lstat(staged)
    seen = (status.st_ino, status.st_size, status.st_mtime_ns)
    return Line(photo=os.fsdecode(name), seen=seen, original=None if photo == name else os.fsdecode(photo))


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
