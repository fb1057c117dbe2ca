"""Compare what is in a folder with its receipt: what facemill wrote and nobody changed, and what must stay.

The folder proves nothing about itself: whoever replaces the originals by links to the copies has the copies alone.
So the original of a copy is another file, below the root of the photos and reached by no link below it.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import IO

import numpy as np

from ..locks import lock_for_removal
from ..tree import Tree
from .receipt import STAGING, Line, Receipt, digest_of

_BLOCK = 1 << 20
_PAGE = 4096  # the smallest part of a file that a power cut leaves empty


class State(Enum):
    """What is at the place of a photo or page."""

    OURS = "as it was placed"
    GONE = "nothing"
    CHANGED = "changed, or another file"
    LAST = "as it was placed, and its original is gone, or has another content"


class Comparison:
    """Compares a folder with its receipt, and removes what need not stay.

    Attributes:
        receipt: the open receipt.
    """

    def __init__(self, receipt: Receipt, *, copied: bool = False) -> None:
        """Open the folder of the originals; all of them count as gone if that is not possible.

        Args:
            receipt: the open receipt.
            copied: the folder may be a copy of the folder that facemill filled: its photos have other inodes.
        Raises:
            ConfigError: a line of the receipt is wrong.
            OSError: the folder cannot be read.
        """
        self.receipt, self._copied = receipt, copied
        self._mode = receipt.header.mode if receipt.header is not None else None
        # With hard links: how many names each photo has in the folder.
        self._inodes, self._names = np.unique(
            np.fromiter(self._linked() if self._mode == "hardlink" else (), np.uint64), return_counts=True
        )
        self._originals: Tree | None = None
        self._open = ExitStack()
        if receipt.header is not None and (self._mode == "copy" or copied):
            try:
                root = Path(os.path.realpath(receipt.header.root))
                self._originals = self._open.enter_context(Tree(root))
            except (OSError, ValueError):
                pass

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def photo(self, line: Line) -> State:
        """What is at the place of a photo, by its line."""
        assert line.photo is not None
        assert line.seen is not None
        try:
            name = self.receipt.kind.below(line.photo)
            status = self.receipt.tree.status(name)
        except NotADirectoryError:
            return State.CHANGED
        if status is None:
            return State.GONE
        is_kind = stat.S_ISLNK if self._mode == "symlink" else stat.S_ISREG
        same = status.st_ino == line.seen[0]
        if not is_kind(status.st_mode) or not (same or self._copied):
            return State.CHANGED
        if not same and self._mode == "symlink":
            return State.OURS
        if same and self._mode == "hardlink":  # the photo may have been edited, but its last name must stay
            return self._link(status)
        if (status.st_size, status.st_mtime_ns) != line.seen[1:]:
            return State.CHANGED
        if line.digest is not None and not (same and self._is_untouched(status)):
            with self.receipt.tree.open_regular(name) as copy:
                if digest_of(copy)[1] != line.digest:
                    return State.CHANGED
        if self._mode != "symlink" and not self._is_copied(name, status, line.original or line.photo):
            return State.LAST
        return State.OURS

    def staged(self, number: str, batch: list[str]) -> State:
        """What is in the staging folder of a killed command.

        Args:
            number: name of the file.
            batch: the photos that were staged last.
        """
        name = f"{STAGING}/{number}"
        status = self.receipt.tree.status(name)
        if status is None:
            return State.GONE
        if self._mode is None or not number.isdecimal():
            return State.CHANGED
        if self._mode == "symlink":
            return State.OURS if stat.S_ISLNK(status.st_mode) else State.CHANGED
        if not stat.S_ISREG(status.st_mode) or int(number) >= len(batch):
            return State.CHANGED
        if self._mode == "hardlink":
            return self._link(status)
        return State.OURS if self._is_copied(name, status, batch[int(number)], whole=False) else State.LAST

    def remove(self, name: str, state: State) -> State:
        """Remove a photo of a state, if it is ours. Returns the state that counts.

        Another command may remove another name of the same photo at this moment: the names are counted again, while
        the photo is locked.

        Args:
            name: path below the folder.
            state: see `photo` and `staged`.
        Raises:
            OSError: the photo cannot be removed.
        """
        tree = self.receipt.tree
        if state is not State.OURS:
            return state
        if self._mode != "hardlink":
            tree.unlink(name)
            return state
        with ExitStack() as stack:
            try:
                photo = stack.enter_context(tree.open_regular(name))
            except FileNotFoundError:
                return State.GONE
            lock_for_removal(photo.fileno(), tree.path / name)
            status = os.fstat(photo.fileno())
            state = self._link(status)
            if state is State.OURS:
                tree.unlink(name)
                self._names[self._place(status)] -= 1
        return state

    def _link(self, status: os.stat_result) -> State:
        """Whether a hard link may go: its photo has a name outside of the folder."""
        place = self._place(status)
        is_known = place < len(self._inodes) and self._inodes[place] == status.st_ino
        return State.OURS if is_known and status.st_nlink > self._names[place] else State.LAST

    def _place(self, status: os.stat_result) -> int:
        return int(np.searchsorted(self._inodes, np.uint64(status.st_ino)))  # as uint64: else both would become floats

    def _linked(self) -> list[int]:
        """The inodes of all names of photos in the folder."""
        tree, inodes = self.receipt.tree, list[int]()
        staged = (f"{STAGING}/{number}" for number in tree.names(STAGING))
        placed = (self.receipt.kind.below(line.photo) for line in self.receipt.lines() if line.photo is not None)
        for names in (staged, placed):
            for name in names:
                try:
                    status = tree.status(name)
                except NotADirectoryError:
                    continue
                if status is not None:
                    inodes.append(status.st_ino)
        return inodes

    def _is_untouched(self, status: os.stat_result) -> bool:
        """Whether a file is as it was when the receipt was written: an edit can keep its size and time of change, but
        not the time of its inode. False where nobody can tell: in a copy of the folder, and after `chmod`.
        """
        return status.st_ctime_ns < self.receipt.written_ns

    def _is_copied(self, name: str, status: os.stat_result, original: str, *, whole: bool = True) -> bool:
        """Whether the original of a copy is there: another file with the same content, or with `whole` unset more.

        Size and time of change tell it, as the copy has both from its original. If the time differs, or the original
        was touched since it was copied, the content is compared.
        """
        if self._originals is None:
            return False
        try:
            there = self._originals.status(original)
            if there is None or not stat.S_ISREG(there.st_mode) or os.path.samestat(there, status):
                return False
            if there.st_size != status.st_size and (whole or there.st_size < status.st_size):
                return False
            same = (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
            if same and self._is_untouched(there):
                return True
            with self._originals.open_regular(original) as photo, self.receipt.tree.open_regular(name) as copy:
                return _begins_with(photo, copy, holes=not whole)
        except (OSError, ValueError):
            return False


def page_state(receipt: Receipt, name: str, written: tuple[int, str]) -> State:
    """What is at the place of a page or list that facemill wrote itself.

    Args:
        receipt: the open receipt.
        name: path below the folder.
        written: size in bytes and SHA-256.
    """
    if receipt.tree.status(name) is None:
        return State.GONE
    try:
        with receipt.tree.open_own(name) as file:
            return State.OURS if digest_of(file) == written else State.CHANGED
    except OSError:
        return State.CHANGED


def is_own(receipt: Receipt, name: str) -> bool:
    """Whether a path below the folder is a regular file of this user."""
    try:
        receipt.tree.open_own(name).close()
    except OSError:
        return False
    return True


def _begins_with(photo: IO[bytes], copy: IO[bytes], *, holes: bool) -> bool:
    """Whether a photo begins with the content of a copy. With `holes`, a page of zeros was not written yet."""
    while block := copy.read(_BLOCK):
        expected = photo.read(len(block))
        if block == expected:
            continue
        pages = ((block[start : start + _PAGE], expected[start : start + _PAGE]) for start in range(0, _BLOCK, _PAGE))
        if not holes or any(page != other and any(page) for page, other in pages):
            return False
    return True
