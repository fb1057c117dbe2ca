"""The receipt of a folder: a header, a line of JSON for each folder, photo and page in it, and an end.

A line is on the disk before its folder, photo or page is in its place (see `fill.place_photos`). So the receipt of a
killed command names everything that the command put there; it lacks the end, and its last line may be torn.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeVar, cast

from .. import __version__
from ..access import access_like
from ..errors import ConfigError
from ..folders import read_mark
from ..storage.file import EmbeddingFile
from ..storage.layout import is_relative
from ..tree import Tree

RECEIPT: Final = "receipt.jsonl"
STAGING: Final = "photos.partial"  # photos that are not in their places yet, under numbers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of folder.

    Attributes:
        name: its content, in the plural: "cluster folders".
        command: the command that fills it, and the option that names it.
        entries: a regular expression for the names in it, besides the receipt and the staging folder.
        top: the folder in it that holds the photos; empty if they lie in the folder itself.
        list: the file in it that lists the photos; empty for none.
    """

    name: str
    command: tuple[str, str]
    entries: str
    top: str = ""
    list: str = ""

    @property
    def all_entries(self) -> str:
        """A regular expression for all names in the folder; temporary names count as the final ones."""
        return rf"{self.entries}|photos|receipt\.jsonl"

    def below(self, name: str) -> str:
        """The path of a photo of the receipt below the folder."""
        return f"{self.top}/{name}" if self.top else name


@dataclass(frozen=True, slots=True)
class Header:
    """The first line.

    Attributes:
        kind: the name of the kind.
        file: the embedding file.
        root: the folder of the photos.
        facemill: version.
        mode: how the photos were placed; see `placing.MODES`; None for a folder of pages.
        filter: the filter, for people.
        csv_safe: whether the list holds no text that a spreadsheet computes.
        run_id, content: the run of the file, and the digest of its content.
        new: whether the folder did not exist before.
    """

    kind: str
    file: str
    root: str
    facemill: str
    mode: Literal["symlink", "hardlink", "copy"] | None = None
    filter: str = ""
    csv_safe: bool = False
    run_id: str = ""
    content: str = ""
    new: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The last line.

    Attributes:
        photos, missing, refused: numbers of photos that were placed, were gone, and were not taken.
    """

    photos: int
    missing: int
    refused: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line after the header: a folder, a batch, a photo, a page, a page that is begun, or the end.

    Attributes:
        folder: path below `Kind.top`.
        batch: photos that are staged next, under their numbers in this list: paths below the root.
        photo: path below `Kind.top`.
        seen: of the photo: inode, size in bytes and time of change in ns.
        original: of the photo: path below the root; None if it is that of `photo`.
        digest: of a copied photo: its SHA-256.
        page: name of a file that facemill wrote itself.
        written: of the page: size in bytes and SHA-256.
        begun: name of such a file whose content is not known yet.
        end: the facts at the end.
    """

    folder: str | None = None
    batch: list[str] | None = None
    photo: str | None = None
    seen: tuple[int, int, int] | None = None
    original: str | None = None
    digest: str | None = None
    page: str | None = None
    written: tuple[int, str] | None = None
    begun: str | None = None
    end: End | None = None

    def __post_init__(self) -> None:
        facts = (self.folder, self.batch, self.photo, self.page, self.begun, self.end)
        pairs = ((self.photo, self.seen), (self.page, self.written))
        if facts.count(None) != len(facts) - 1 or any((name is None) != (fact is None) for name, fact in pairs):
            raise ValueError(
                "expected: a folder, a batch, a photo with what was seen, a page with what was written, or the end"
            )
        if self.seen is not None and not 0 <= self.seen[0] < 1 << 64:
            raise ValueError(f"{self.seen[0]} is no inode")
        for name in (self.folder, self.photo, self.page, self.begun, self.original, *(self.batch or ())):
            if name is not None and not is_relative(os.fsencode(name)):
                raise ValueError(f"the path {name!r} leads out of the folder")


class Receipt:
    """An open receipt, with the folder in which it is.

    Attributes:
        path: the receipt.
        kind: the kind of its folder.
        tree: its folder.
        marked: whether the folder has the mark of this kind.
        finished: whether the mark says that the folder was filled to the end.
        header: the first line; None if the run was killed, or its disk was full, before it was written.
        written_ns: when its last line was written. A photo that came to its place before, and was touched since, has a
            later time of its inode (ctime), which no program can set.
    """

    def __init__(self, path: Path, kind: Kind, folder: Tree | None = None) -> None:
        """Open a receipt. No link is followed, and it must be a regular file of this user.

        Args:
            path: the receipt.
            kind: the kind of its folder.
            folder: its folder, if that is open, which stays open.
        Raises:
            ConfigError: it is no receipt of a folder of this kind.
        """
        self.path, self.kind = path, kind
        with ExitStack() as stack:
            try:
                self.tree = folder or stack.enter_context(Tree(Path(os.path.realpath(path.parent))))
                self._file = stack.enter_context(self.tree.open_own(path.name))
                self.written_ns = os.fstat(self._file.fileno()).st_mtime_ns
                mark = read_mark(self.tree)
                self.marked = mark.get("kind") == kind.name
                self.finished = self.marked and bool(mark.get("finished"))
                first = self._file.readline()
                unwritten = not first.endswith(b"\n") and self.marked and not self.finished
                self.header = None if unwritten else _read_header(first, kind)
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

    def _error(self, reason: str) -> ConfigError:
        command, option = self.kind.command
        return ConfigError(
            f"{self.path} is no receipt of {command} ({reason}); expected: the {RECEIPT} in the folder that {option} "
            f"named"
        )


def _read_header(text: bytes, kind: Kind) -> Header:
    header = _read(text, Header)
    if header.kind != kind.name:
        raise ValueError(f"it is of {header.kind!r}; expected: {kind.name!r}")
    return header


def _read(text: bytes, kind: type[T]) -> T:
    """Read a line. `json` and not msgspec parses it: names that are no UTF-8 hold lone surrogates."""
    import msgspec

    return msgspec.convert(json.loads(text), kind)


def _reason(err: BaseException) -> str:
    return (err.strerror if isinstance(err, OSError) else None) or str(err)


@dataclass(frozen=True, slots=True)
class NewReceipt:
    """The receipt of a folder that is being filled.

    Attributes:
        tree: the folder. Everything is written through it, whatever the path of the folder leads to by now.
        file: the open receipt.
    """

    tree: Tree
    file: IO[bytes]


def line_of(entry: Header | Line) -> bytes:
    """An entry as a line of the receipt."""
    facts = {key: value for key, value in asdict(entry).items() if value not in (None, "", False)}
    return json.dumps(facts).encode("ascii") + b"\n"


def header_of(kind: Kind, gallery: EmbeddingFile, *, mode: str | None = None) -> Header:
    """The header of a folder that is made from an open embedding file."""
    return Header(
        kind=kind.name,
        file=os.path.abspath(gallery.path),
        root=os.path.abspath(os.fsdecode(gallery.root)),
        facemill=__version__,
        mode=cast(Any, mode),
    )


@contextmanager
def new_receipt(folder: Tree, header: Header, *, like: Path) -> Iterator[NewReceipt]:
    """Begin the receipt of a folder that `folders.fill_folder` has emptied. Its name and header are on the disk.

    Args:
        folder: the open folder.
        header: the first line.
        like: the embedding file; see `access.access_like`.
    Raises:
        OSError: the receipt cannot be written.
    """
    with folder.new_file(RECEIPT, access_like([like])) as file:
        receipt = NewReceipt(folder, file)
        write_lines(receipt, [header])
        folder.sync()
        yield receipt


def write_lines(receipt: NewReceipt, lines: Iterable[Header | Line]) -> None:
    """Write lines of a receipt; they are on the disk when this returns."""
    receipt.file.writelines(map(line_of, lines))
    receipt.file.flush()
    os.fsync(receipt.file.fileno())


def digest_of(file: IO[bytes]) -> tuple[int, str]:
    """Size in bytes and SHA-256 of an open file."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return file.tell(), digest.hexdigest()
