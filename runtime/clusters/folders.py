"""Write a folder per cluster, with links to its photos or copies of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..folders import MARK
from ..pairs.outputs import Ready
from ..progress import Listener, track
from ..receipts.clear import check_receipt_folder, receipt_folder
from ..receipts.fill import Batch, place_photos
from ..receipts.kinds import CLUSTERS
from ..receipts.placing import Placed, placing_error
from ..receipts.receipt import End, Line, header_of, new_receipt, write_lines
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from ..tree import Tree
from .clusters import Clusters

_ROWS_PER_READ = 10_000
_MAX_NAME_BYTES = 255  # of a file name, in all common file systems
_MAX_SUFFIX_BYTES = 16  # longer endings are part of the stem


@dataclass(frozen=True, slots=True)
class FolderCounts:
    """Counts of `write_folders`.

    Attributes:
        folders, photos: numbers written.
        missing: photos that do not exist any more.
        refused: photos that were not copied or linked: a link stands in their path, or they are no photos any more.
    """

    folders: int
    photos: int
    missing: int
    refused: int = 0


def check_folders(path: Path, *, force: bool) -> None:
    """Check, before the work, that the folder can be filled; see `clear.check_receipt_folder`."""
    check_receipt_folder(path, CLUSTERS, force=force)


def write_folders(
    path: Path,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    *,
    mode: str,
    min_rows: int = 2,
    force: bool = False,
    listener: Listener | None = None,
    ready: Ready = lambda status: None,
) -> FolderCounts:
    """Write `cluster-00001`, `cluster-00002` ... with a link to, or a copy of, each photo.

    An entry has the name of its photo, to the byte. The second photo of one name in a cluster ends in -2.

    Whoever may write in the folder of the photos may have replaced a photo since it was embedded. So a photo is opened
    below the root of the file without following links, and looked at, before it is copied or linked hard. A copy has
    the content and the time of its photo. It belongs to the owner of the embedding file, without a setuid bit, and only
    users who may read both that file and the photo may read it.

    Args:
        path: the folder; see `clear.receipt_folder`. Its `receipt.jsonl` names everything that is put there.
        embeddings: the file that was clustered.
        clusters: clusters of its rows.
        mode: one of `placing.MODES`. A symbolic link names the absolute path; a hard link needs the same file system.
        min_rows: skip clusters with fewer rows.
        force: replace the content of the folder, if facemill wrote all of it and nobody changed it.
        listener: shows the progress; None logs a line every five seconds.
        ready: called with the status of the folder before it is filled.
    Raises:
        ConfigError: hard links are not possible there.
        OutputExistsError: the folder holds something else, or the last copy of a photo; or `force` is false.
        StorageError, DiskFullError: the folder cannot be written.
    """
    count = clusters.count_at_least(min_rows)
    header = header_of(CLUSTERS, embeddings, mode=mode)
    with receipt_folder(path, CLUSTERS, force=force, like=embeddings.path) as folder:
        ready(os.lstat(path))
        record_start(embeddings, path)
        try:
            with new_receipt(folder, header, like=embeddings.path) as receipt:
                names = _FreeNames(folder)
                counts = place_photos(
                    receipt,
                    embeddings,
                    _batches(embeddings, clusters, count, names, listener),
                    mode=mode,
                    folders=[_folder(number) for number in range(1, count + 1)],
                    free_name=names.take,
                )
                written, missing, refused = (counts[kind] for kind in (Placed.WRITTEN, Placed.MISSING, Placed.REFUSED))
                write_lines(receipt, [Line(end=End(written, missing, refused))])
        except OSError as err:
            raise placing_error(err, "the cluster folders", path, mode) from err
    record_page(embeddings, path)
    return FolderCounts(count, written, missing, refused)


def _batches(
    embeddings: EmbeddingFile, clusters: Clusters, count: int, names: _FreeNames, listener: Listener | None
) -> Iterator[Batch]:
    """The photos of clusters 1 to `count`, each in the folder of its cluster."""
    labels = clusters.labels
    selected = np.flatnonzero((labels >= 1) & (labels <= count))
    # A photo is placed once, however many of its faces are in a cluster.
    keys = embeddings.photo_numbers()[selected] * (count + 1) + labels[selected]
    selected = np.sort(selected[np.unique(keys, return_index=True)[1]])  # ascending, the order of reading
    blocks = [selected[start : start + _ROWS_PER_READ] for start in range(0, len(selected), _ROWS_PER_READ)]
    for block in track(blocks, "cluster folders", len(selected), unit="photos", listener=listener):
        names.begin_batch()
        rows = block.tolist()
        yield [
            (photo, os.path.join(_folder(int(labels[row])), safe_name(os.path.basename(photo), row)))
            for row, photo in zip(rows, embeddings.photo_names(rows), strict=True)
        ]


def _folder(number: int) -> bytes:
    return b"cluster-%05d" % number


def safe_name(name: bytes, row: int) -> bytes:
    """Return the name of a photo, or `row-N` for a name that would lead out of the folder."""
    return b"row-%d" % row if name in (b"", b".", b"..") else name


class _FreeNames:
    """Finds free names: those of the batch are not in their folders yet."""

    def __init__(self, folder: Tree) -> None:
        self._folder = folder
        self._ignores_case = folder.status(MARK.upper()) is not None
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}  # of names that were taken: the first number that may be free

    def begin_batch(self) -> None:
        """The photos of the last batch are in their folders."""
        self._taken.clear()

    def take(self, path: bytes) -> bytes:
        """Return a path below the top, or the first free one of name-2, name-3 ..."""
        folder, name = os.path.split(path)
        wanted = self._key(path)
        first = self._next.get(wanted, 1)
        names = ((number, os.path.join(folder, each)) for number, each in enumerate(numbered_names(name, first), first))
        number, free = next((number, each) for number, each in names if self._is_free(each))
        self._taken.add(self._key(free))
        if number > 1:
            self._next[wanted] = number + 1
        return free

    def _is_free(self, path: bytes) -> bool:
        return self._key(path) not in self._taken and self._folder.status(os.fsdecode(path)) is None

    def _key(self, path: bytes) -> str:
        return os.fsdecode(path).casefold() if self._ignores_case else os.fsdecode(path)


def numbered_names(name: bytes, first: int = 1) -> Iterator[bytes]:
    """Yield a name, then name-2, name-3 ..., none longer than a file system allows; from a number on."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, b""
    if first == 1:
        yield name
    for number in itertools.count(max(first, 2)):
        end = b"-%d" % number + suffix
        yield stem[: _MAX_NAME_BYTES - len(end)] + end
