"""The receipt of a folder of filtered photos: a header, a line of JSON for each folder and photo in it, and an end.

A line is on the disk before its folder or photo is in its place (see `folders.write_folders`). So the receipt of a
killed run names everything that the run put there; it lacks the end, and its last line may be torn.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, Literal, TypeVar

from ..errors import ConfigError
from ..folders import MARK
from ..storage.layout import is_relative
from .tree import Tree

KIND: Final = "filtered photos"
PHOTOS, LIST, RECEIPT = "photos", "photos.csv", "receipt.jsonl"  # the content of the folder
STAGING = "photos.partial"  # photos that are not in their place yet, under numbers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Header:
    """The first line.

    Attributes:
        mode: how the photos were placed; see `placing.MODES`.
        filter: the filter, for people.
        csv_safe: whether the list holds no text that a spreadsheet computes.
        file, run_id, content: the embedding file, its run, and the digest of its content.
        root: the folder of the photos.
        new: whether the folder did not exist before.
        facemill: version.
    """

    kind: Literal["filtered photos"]
    mode: Literal["symlink", "hardlink", "copy"]
    filter: str
    csv_safe: bool
    file: str
    run_id: str
    content: str
    root: str
    new: bool
    facemill: str


@dataclass(frozen=True, slots=True)
class End:
    """The last line.

    Attributes:
        photos, missing, refused: see `folders.FolderFacts`.
        list: size in bytes and SHA-256 of `photos.csv`.
    """

    photos: int
    missing: int
    refused: int
    list: tuple[int, str]


@dataclass(frozen=True, slots=True)
class Line:
    """A line after the header: a folder, a photo or the end.

    Attributes:
        folder: path below `photos`.
        photo: path below `photos`.
        seen: of the photo: inode, size in bytes and time of change in ns.
        end: the facts at the end.
    """

    folder: str | None = None
    photo: str | None = None
    seen: tuple[int, int, int] | None = None
    end: End | None = None

    def __post_init__(self) -> None:
        if [self.folder, self.photo, self.end].count(None) != 2 or (self.photo is None) != (self.seen is None):
            raise ValueError("expected: a folder, a photo with what was seen, or the end")
        name = self.folder if self.folder is not None else self.photo
        if name is not None and not is_relative(os.fsencode(name)):
            raise ValueError(f"the path {name!r} leads out of the folder")


class Receipt:
    """An open receipt, with the folder in which it is.

    Attributes:
        path: the receipt.
        tree: its folder.
        marked: whether the folder has the mark of filtered photos.
        finished: whether the mark says that the folder was filled to the end.
        header: the first line; None if the run was killed, or its disk was full, before it was written.
    """

    def __init__(self, path: Path) -> None:
        """Open a receipt. No link is followed, and it must be a regular file of this user.

        Raises:
            ConfigError: it is no receipt.
        """
        self.path = path
        with ExitStack() as stack:
            try:
                self.tree = stack.enter_context(Tree(Path(os.path.realpath(path.parent))))
                self._file = stack.enter_context(self.tree.open_own(path.name))
                mark = self._read_mark()
                self.marked = mark.get("kind") == KIND
                self.finished = self.marked and bool(mark.get("finished"))
                first = self._file.readline()
                unwritten = not first.endswith(b"\n") and self.marked and not self.finished
                self.header = None if unwritten else _read(first, Header)
            except (OSError, ValueError, RecursionError) as err:
                raise self._error(f"line 1: {err}" if isinstance(err, ValueError) else _reason(err)) from err
            self._open = stack.pop_all()

    def __enter__(self) -> Receipt:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def lines(self) -> Iterator[Line]:
        """Yield the lines after the header.

        Raises:
            ConfigError: a line is wrong; the message has its number.
        """
        self._file.seek(0)
        for number, text in enumerate(self._file, 1):
            if number == 1:
                continue
            try:
                line = _read(text, Line)
            except (ValueError, RecursionError) as err:
                if not text.endswith(b"\n"):
                    return  # the last line is torn, so that nothing was placed for it
                raise self._error(f"line {number}: {err}") from err
            yield line

    def end(self) -> End | None:
        """The last line; None for the receipt of a killed run. Every line is checked."""
        end = None
        for line in self.lines():
            end = line.end
        return end

    def _read_mark(self) -> dict[str, object]:
        try:
            with self.tree.open_own(MARK) as file:
                mark = json.loads(file.read(1 << 16))
        except (OSError, ValueError, RecursionError):
            return {}
        return mark if isinstance(mark, dict) else {}

    def _error(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.path} is no receipt of facemill filter ({reason}); expected: the {RECEIPT} in the folder that "
            f"--folders named"
        )


def _read(text: bytes, kind: type[T]) -> T:
    """Read a line. `json` and not msgspec parses it: names that are no UTF-8 hold lone surrogates."""
    import msgspec

    return msgspec.convert(json.loads(text), kind)


def _reason(err: BaseException) -> str:
    return (err.strerror if isinstance(err, OSError) else None) or str(err)


def line_of(entry: Header | Line) -> bytes:
    """An entry as a line of the receipt."""
    facts = {key: value for key, value in asdict(entry).items() if value is not None}
    return json.dumps(facts).encode("ascii") + b"\n"


def list_digest(file: IO[bytes]) -> tuple[int, str]:
    """Size in bytes and SHA-256 of an open list."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return file.tell(), digest.hexdigest()


def was_new(folder: Path) -> bool:
    """Whether an earlier filter created this folder, by the receipt in it."""
    try:
        with Receipt(folder / RECEIPT) as receipt:
            return receipt.header is not None and receipt.header.new
    except ConfigError:
        return False
