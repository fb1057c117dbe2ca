"""Fill a folder by its receipt: a killed command has put nothing there that the receipt does not name."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..access import access_like
from ..errors import FacemillError
from ..files import TEMPORARY_SUFFIX, storage_error
from ..storage.file import EmbeddingFile
from ..tree import Tree, swapped
from .placing import Placed, placer
from .receipt import STAGING, Line, NewReceipt, digest_of, write_lines

# The photos of a batch: each with its name below the root, and its name below the top.
Batch = Sequence[tuple[bytes, bytes]]


def place_photos(
    receipt: NewReceipt,
    gallery: EmbeddingFile,
    batches: Iterable[Batch],
    *,
    mode: str,
    top: str = "",
    folders: Sequence[bytes] = (),
    free_name: Callable[[bytes], bytes] = bytes,
) -> Counter[Placed]:
    """Place photos in batches: first under numbers in the staging folder, then their lines in the receipt, and when
    these are on the disk, each photo in its place.

    Args:
        receipt: see `receipt.new_receipt`.
        gallery: the open embedding file.
        batches: the photos.
        mode: one of `placing.MODES`.
        top: the folder of the photos, in the folder of the receipt; empty for that folder itself.
        folders: folders below the top that are made in any case, the outermost first.
        free_name: the name to take for a name below the top that may be taken.
    Returns:
        How many photos were placed, missing and refused.
    Raises:
        OSError: a photo cannot be placed, its name is taken, or a folder is not the one that was made.
    """
    counts: Counter[Placed] = Counter()
    tree, access = receipt.tree, access_like([gallery.path])
    place, made = placer(mode, gallery, tree), dict.fromkeys((b"", *folders))
    write_lines(receipt, (Line(folder=os.fsdecode(name)) for name in folders))
    for path in (STAGING, *(_below(top, name) for name in made)):
        if path:
            tree.make_folder(path, access)
    for batch in batches:
        if mode != "symlink":  # the only copy, or name, of a photo may be staged: its original must be known
            write_lines(receipt, [Line(batch=[os.fsdecode(photo) for photo, _ in batch])])
        staged: list[tuple[int, bytes]] = []
        lines: list[Line] = []
        for number, (photo, name) in enumerate(batch):
            outcome = place(photo, f"{STAGING}/{number}")
            counts[outcome] += 1
            if outcome is Placed.WRITTEN:
                staged.append((number, free_name(name)))
                lines.append(_photo_line(tree, number, photo, staged[-1][1], copied=mode == "copy"))
        parents = dict.fromkeys(parent for _, name in staged for parent in _parents(name) if parent not in made)
        write_lines(receipt, [*(Line(folder=os.fsdecode(parent)) for parent in parents), *lines])
        for parent in parents:
            tree.make_folder(_below(top, parent), access)
        made |= parents
        for number, name in staged:
            tree.move(f"{STAGING}/{number}", _below(top, name))
    tree.sync()  # a name is of use only in a folder that has its own
    for name in made:
        tree.sync(_below(top, name))  # before the mark that says that all is there
    tree.rmdir(STAGING)
    if tree.status(STAGING) is not None:
        raise swapped(STAGING)
    return counts


def write_page(name: str, data: bytes, what: str, receipt: NewReceipt, *, like: Path) -> None:
    """Write a page beside its receipt, which names it first.

    Args:
        name: the file name, which must be free.
        data: the content.
        what: its name in messages, such as "the sheet".
        receipt: see `receipt.new_receipt`.
        like: the embedding file: nobody may read the page who may not read that file.
    Raises:
        DiskFullError, StorageError: the page cannot be written.
    """
    tree, partial = receipt.tree, name + TEMPORARY_SUFFIX
    try:
        write_lines(receipt, [Line(page=name, written=(len(data), hashlib.sha256(data).hexdigest()))])
        with tree.new_file(partial, access_like([like])) as file:
            try:
                file.write(data)
                file.flush()
            except OSError:  # a full disk needs the space
                tree.unlink(partial)
                raise
        tree.move(partial, name)
        tree.sync()
    except OSError as err:
        if isinstance(err, FacemillError):
            raise
        raise storage_error(err, what, tree.path / name) from err


@contextmanager
def listed_file(name: str, receipt: NewReceipt, *, like: Path) -> Iterator[IO[bytes]]:
    """Open a new list beside its receipt; it gets its name when the receipt says what is in it.

    Args:
        name: the file name, which must be free.
        receipt: see `receipt.new_receipt`.
        like: the embedding file: nobody may read the list who may not read that file.
    Raises:
        OSError: the list cannot be written.
    """
    partial = name + TEMPORARY_SUFFIX
    write_lines(receipt, [Line(begun=name)])
    with receipt.tree.new_file(partial, access_like([like])) as file:
        yield file
        file.flush()
        write_lines(receipt, [Line(page=name, written=digest_of(file))])
    receipt.tree.move(partial, name)
    receipt.tree.sync()


def _photo_line(tree: Tree, number: int, photo: bytes, name: bytes, *, copied: bool) -> Line:
    staged = f"{STAGING}/{number}"
    status = tree.status(staged)
    if status is None:
        raise swapped(STAGING)
    digest = None
    if copied:
        with tree.open_regular(staged) as file:
            digest = digest_of(file)[1]
    return Line(
        photo=os.fsdecode(name),
        seen=(status.st_ino, status.st_size, status.st_mtime_ns),
        original=None if photo == name else os.fsdecode(photo),
        digest=digest,
    )


def _parents(name: bytes) -> Iterator[bytes]:
    """The folders of a path, the outermost first."""
    parts = name.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        yield b"/".join(parts[:count])


def _below(top: str, name: bytes) -> str:
    return "/".join(filter(None, (top, os.fsdecode(name))))
