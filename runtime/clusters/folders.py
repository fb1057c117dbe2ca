"""Write a folder per cluster, with links to its photos or copies of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from ..errors import ConfigError, FacemillError
from ..files import make_folder, storage_error, sync_folder, synced_file
from ..folders import check_folder, fill_folder
from ..images.header import SNIFF_BYTES, is_image
from ..pairs.outputs import Ready
from ..progress import Listener, track
from ..sources.reader import ReadError, open_below
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from .clusters import Clusters

KIND = "cluster folders"
MODES = ("symlink", "hardlink", "copy")
_ENTRIES = r"cluster-\d{5,}"
_MAX_NAME_BYTES = 255  # of a file name, in all common file systems
_ROWS_PER_READ = 10_000
_MAX_SUFFIX_BYTES = 16  # longer endings are part of the stem
_NO_HARDLINK_ERRORS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}


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
    """Check, before the work, that the folder can be filled; see `folders.check_folder`."""
    check_folder(path, KIND, _ENTRIES, force=force)


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
    the content and the time of its photo, and the access of the embedding file: no owner and no setuid bit goes along.

    Args:
        path: the folder; see `folders.fill_folder`.
        embeddings: the file that was clustered.
        clusters: clusters of its rows.
        mode: one of MODES. A symbolic link names the absolute path; a hard link needs the same file system.
        min_rows: skip clusters with fewer rows.
        force: replace the content of the folder, if facemill wrote it.
        listener: shows the progress; None logs a line every five seconds.
        ready: called with the status of the folder before it is filled.
    Raises:
        ConfigError: hard links are not possible there.
        OutputExistsError: the folder holds something else, or `force` is false.
        StorageError, DiskFullError: the folder cannot be written.
    """
    count = clusters.count_at_least(min_rows)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=embeddings.path):
        ready(os.lstat(path))
        record_start(embeddings, path)
        try:
            counts = _fill(os.fsencode(path), embeddings, clusters, count, _place(mode, embeddings), listener)
        except OSError as err:
            if mode == "hardlink" and err.errno in _NO_HARDLINK_ERRORS:
                raise ConfigError(
                    f"hard links to the photos cannot be created in {path} ({err.strerror}); expected: one file "
                    f"system. Use --mode copy, or --mode symlink"
                ) from err
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, "the cluster folders", path) from err
    record_page(embeddings, path)
    return FolderCounts(count, counts[_Placed.WRITTEN], counts[_Placed.MISSING], counts[_Placed.REFUSED])


class _Placed(Enum):
    """What became of a photo."""

    WRITTEN = "written"
    MISSING = "missing"
    REFUSED = "refused"


# Puts a photo (its name below the root) into a folder under a name, which must be free.
_Place = Callable[[bytes, bytes], _Placed]


def _fill(
    top: bytes,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    count: int,
    place: _Place,
    listener: Listener | None,
) -> Counter[_Placed]:
    """Write clusters 1 to `count`."""
    counts: Counter[_Placed] = Counter()
    for number in range(1, count + 1):
        make_folder(Path(os.fsdecode(_folder(top, number))), like=embeddings.path)
    labels = clusters.labels
    selected = np.flatnonzero((labels >= 1) & (labels <= count))
    # A photo is placed once, however many of its faces are in a cluster.
    keys = embeddings.photo_numbers()[selected] * (count + 1) + labels[selected]
    selected = np.sort(selected[np.unique(keys, return_index=True)[1]])  # ascending, the order of reading
    blocks = [selected[start : start + _ROWS_PER_READ] for start in range(0, len(selected), _ROWS_PER_READ)]
    for block in track(blocks, "cluster folders", len(selected), unit="photos", listener=listener):
        rows = block.tolist()
        for row, photo in zip(rows, embeddings.photo_names(rows), strict=True):
            name = _safe_name(os.path.basename(photo), row)
            counts[_place_unique(place, photo, _folder(top, int(labels[row])), name)] += 1
    for number in range(1, count + 1):
        sync_folder(Path(os.fsdecode(_folder(top, number))))  # before the mark that says that all is there
    return counts


def _folder(top: bytes, number: int) -> bytes:
    return os.path.join(top, b"cluster-%05d" % number)


def _safe_name(name: bytes, row: int) -> bytes:
    """Return the name of a photo, or `row-N` for a name that would lead out of the folder."""
    return b"row-%d" % row if name in (b"", b".", b"..") else name


def _place_unique(place: _Place, photo: bytes, folder: bytes, name: bytes) -> _Placed:
    """Place a photo under its name, or the first free one of name-2, name-3 ..."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, b""
    number = 1
    while True:
        try:
            return place(photo, os.path.join(folder, name))
        except FileExistsError:
            number += 1
            end = b"-%d" % number + suffix
            name = stem[: _MAX_NAME_BYTES - len(end)] + end


def _place(mode: str, embeddings: EmbeddingFile) -> _Place:
    """The function that places the photos of a file in a mode."""
    root = embeddings.root

    def symlink(photo: bytes, target: bytes) -> _Placed:
        path = os.path.join(root, photo)
        if not os.path.isfile(path):
            return _Placed.MISSING
        os.symlink(os.path.realpath(path), target)  # a link to a link breaks when the first one moves
        return _Placed.WRITTEN

    def with_open(write: Callable[[int, bytes], None]) -> _Place:
        def place(photo: bytes, target: bytes) -> _Placed:
            try:
                fd = open_below(root, photo)
            except ReadError:
                return _Placed.REFUSED if os.path.lexists(os.path.join(root, photo)) else _Placed.MISSING
            try:
                if not is_image(os.pread(fd, SNIFF_BYTES, 0)):
                    return _Placed.REFUSED
                write(fd, target)
            finally:
                os.close(fd)
            return _Placed.WRITTEN

        return place

    def hardlink(fd: int, target: bytes) -> None:
        # The open file and not its name, which may stand for another file by now. Python follows this link only with
        # a folder for the path, which is absolute.
        os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)

    def copy(fd: int, target: bytes) -> None:
        with synced_file(Path(os.fsdecode(target)), like=embeddings.path) as output:
            with open(fd, "rb", closefd=False) as source:
                shutil.copyfileobj(source, output, 1 << 20)
            output.flush()
            status = os.fstat(fd)
            os.utime(output.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))

    return {"symlink": symlink, "hardlink": with_open(hardlink), "copy": with_open(copy)}[mode]
