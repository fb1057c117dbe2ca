"""Age and gender: add them to a file, and select photos by them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..attributes.answers import unread_rows
from ..attributes.head import find_head
from ..attributes.selection import AttributeFilter
from ..engines.choose import choose_attributes
from ..errors import ConfigError, OptionError
from ..filters.folders import FolderFacts, check_folders, find_written, write_folders
from ..filters.lists import check_list_path, write_list
from ..filters.undo import Undone, undo
from ..interrupt import Control
from ..maintenance import attributes as adding
from ..maintenance.attributes import Attributed
from ..pipeline.request import AttributeReader
from ..progress import Listener
from ..records import ATTRIBUTE_FIELDS
from ..storage.file import EmbeddingFile
from ..storage.format import display_text
from .jobs import PathLike, parse_attributes

SOURCES = ("photos", "embeddings")
_ROWS_PER_READ = 100_000


def add_attributes(
    file: PathLike,
    attributes: str | Sequence[str] = tuple(ATTRIBUTE_FIELDS),
    *,
    source: str = "photos",
    backend: str = "auto",
    exclude: Sequence[str] = (),
    force: bool = False,
    replace_others: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Attributed:
    """Add age and gender to a file that was made without them.

    A new file replaces the old one: after a crash the file is unchanged or has them, and the same call goes on. Faces
    that have them already are not read again. A face that cannot be read again keeps its answer, and attributes that
    are not named stay. Read docs/attributes.md before you use them.

    Args:
        file: a finished embedding file.
        attributes: "age", "gender" or both, as "age,gender" or a list.
        source: "photos" to read the photos again, at the places of the faces that the file names; "embeddings" to read
            no photo and ask a head about the embeddings, which takes seconds.
        backend: backend of the network that looks at the photos: "cpu", "cuda", "tensorrt", or "auto".
        exclude: patterns of photos that are not read, such as one on a bad sector.
        force: read all faces again.
        replace_others: replace the answers of another network or source. A face that cannot be read again then loses
            its answer.
        listener: shows the progress; None logs it.
        control: pauses and stops the job, from another thread or by signals; None for neither.
    Returns:
        How many faces were read, and how many not, because their photos are gone.
    Raises:
        ConfigError: a name or the source is unknown, or the file holds crops of another size, or answers of another
            network or source.
        ModelError: no head is known for the model of the file.
        OptionError: photos are excluded, and no photo is read.
        SourceError: the photos are gone, or one of their disks; the file is unchanged.
        MachineError: a photo cannot be read because of the machine; what was read is kept.
        StorageError, DiskFullError, LockedError: the file is unchanged.
        Interrupted: the control stopped the job; what was read is kept.

    Example:
        >>> import facemill
        >>> added = facemill.add_attributes("people.h5", "age,gender")
        >>> added.rows, added.unread
        (12, 0)
    """
    names = parse_attributes(attributes)
    if source not in SOURCES:
        raise ConfigError(f"the source is {source!r}; expected: {' or '.join(SOURCES)}")
    if exclude and source != "photos":
        raise OptionError("--exclude and --from embeddings exclude each other: no photo is read")
    if source == "photos":
        reader = AttributeReader(names, choose_attributes(backend))
    else:
        with EmbeddingFile(Path(file)) as gallery:
            reader = AttributeReader(names, head=find_head(gallery.contract.model, gallery.contract.model_sha256))
    options: dict[str, Any] = {"exclude": tuple(exclude), "force": force, "replace_others": replace_others}
    return adding.add_attributes(Path(file), reader, **options, listener=listener, control=control)


@dataclass(frozen=True, slots=True)
class Match:
    """A row that a filter selects.

    Attributes:
        row: row of `/embeddings`.
        path: its photo, as in `/image_paths`.
        age, age_low, age_high: years; None if they were not read.
        gender, gender_score: "man" or "woman", and its probability; None if they were not read.
    """

    row: int
    path: str
    age: float | None
    age_low: float | None
    age_high: float | None
    gender: str | None
    gender_score: float | None

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class FilterReport:
    """The rows that a filter selects. Iterate over it for `Match` objects, in the order of the file.

    Attributes:
        file: the embedding file.
        root: the folder that the paths are below.
        chosen: the filter.
        rows: (n,) int64, ascending rows of `/embeddings`.
        embeddings: rows of the file.
        photos: number of photos of the selected rows.
        unread: rows of the file of which nothing was read: no filter selects them.
        folders: what was written to the folder; None if none was requested.
    """

    file: Path
    root: str
    chosen: AttributeFilter
    rows: NDArray[np.int64]
    embeddings: int
    photos: int
    unread: int
    folders: FolderFacts | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Match]:
        with EmbeddingFile(self.file) as gallery:
            attributes = gallery.attributes
            assert attributes is not None
            for start in range(0, len(self.rows), _ROWS_PER_READ):
                rows = self.rows[start : start + _ROWS_PER_READ]
                for row, path, read in zip(rows.tolist(), gallery.names(rows.tolist()), attributes[rows], strict=True):
                    numbers = {name: float(read[name]) for name in ("age", "age_low", "age_high", "gender_score")}
                    known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
                    yield Match(row, path, gender=read["gender"].decode() or None, **known)

    def photo_paths(self) -> Iterator[bytes]:
        """Yield the absolute path of each selected photo once, to the byte, in the order of the file."""
        with EmbeddingFile(self.file) as gallery:
            rows = self.rows[np.unique(gallery.photo_numbers()[self.rows], return_index=True)[1]]
            for start in range(0, len(rows), _ROWS_PER_READ):
                yield from map(os.path.abspath, gallery.photo_paths(rows[start : start + _ROWS_PER_READ].tolist()))

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON, without the rows."""
        chosen = {"gender": self.chosen.gender, "ages": self.chosen.ages, "unsure": self.chosen.unsure}
        counts = {"embeddings": self.embeddings, "selected": len(self), "photos": self.photos, "unread": self.unread}
        return {"root": self.root, **chosen, **counts, **({} if self.folders is None else asdict(self.folders))}


def filter(
    file: PathLike,
    *,
    gender: str | None = None,
    age: str | tuple[int, int] | None = None,
    unsure: str = defaults.UNSURE,
    output: PathLike | None = None,
    csv_safe: bool = False,
    folders: PathLike | None = None,
    mode: str = "symlink",
    force: bool = False,
    listener: Listener | None = None,
) -> FilterReport:
    """Select the photos in a file by age and gender, as a network read them; list them, and put them into a folder.

    Args:
        file: a finished embedding file with attributes; see `add_attributes`.
        gender: "man" or "woman"; None for both.
        age: years, such as "18-40", "18-", "-12", "30" or (18, 40), both included; None for all.
        unsure: "keep" to go by the network's best guess; "drop" to leave out rows of which it is unsure, see
            `AttributeFilter`.
        output: file for a list, `.csv`; None to write none.
        csv_safe: write `'` into the lists before a name that a spreadsheet computes.
        folders: folder to fill with `photos/`, `photos.csv` and a receipt; None to fill none. If an earlier call with
            the same options filled it, and neither the file nor its photos were changed, nothing is done.
        mode: content of `photos/`: "symlink", "hardlink" or "copy".
        force: replace outputs. A folder is replaced only if nobody changed it or put a file into it.
        listener: shows the progress; None logs it.
    Returns:
        The selected rows.
    Raises:
        OptionError: neither a gender nor an age is given.
        ConfigError: a value is out of range, or the file lacks what it selects by.
        OutputExistsError: an output exists.
        StorageError, DiskFullError: the file is damaged, or an output cannot be written.

    Example:
        >>> import facemill
        >>> added = facemill.add_attributes("people.h5")
        >>> report = facemill.filter("people.h5", age="0-150")
        >>> len(report), report.unread
        (12, 0)
    """
    chosen = AttributeFilter.of(gender, age, unsure)
    if not chosen:
        raise OptionError("neither a gender nor an age is given; expected: --gender, --age or both")
    listed, filled = (None if place is None else Path(place) for place in (output, folders))
    if listed is not None:
        check_list_path(listed, force=force)
    with EmbeddingFile(Path(file)) as gallery:
        how: dict[str, Any] = {"mode": mode, "csv_safe": csv_safe}
        facts = None if filled is None or force else find_written(filled, gallery, chosen, **how)
        if filled is not None and facts is None:
            check_folders(filled, force=force)
        selected = chosen.rows(gallery)
        rows = np.flatnonzero(selected)
        photos = len(np.unique(gallery.photo_numbers()[rows]))
        if listed is not None:
            write_list(listed, gallery, rows, csv_safe=csv_safe)
        if filled is not None and facts is None:
            facts = write_folders(filled, gallery, rows, chosen, force=force, listener=listener, **how)
        assert gallery.attributes is not None
        unread = int(unread_rows(gallery.attributes, chosen.needed).sum())
        root = display_text(gallery.root)
        return FilterReport(Path(file), root, chosen, rows, gallery.rows, photos, unread, facts)


def undo_filter(receipt: PathLike) -> Undone:
    """Undo a folder that `filter` filled: remove its links or copies, its list and itself. What others put there stays.

    Args:
        receipt: `receipt.jsonl` in the folder; no symbolic link.
    Returns:
        What was removed, and what stays: changed photos, and the last copies of photos whose originals are gone.
    Raises:
        ConfigError: the file is no such receipt, or the folder has no mark of facemill.
        StorageError, LockedError: something cannot be removed; the same call goes on.

    Example:
        >>> import facemill
        >>> added = facemill.add_attributes("people.h5")
        >>> report = facemill.filter("people.h5", age="0-150", folders="selected")
        >>> facemill.undo_filter(report.folders.receipt).removed
        12
    """
    return undo(Path(receipt))
