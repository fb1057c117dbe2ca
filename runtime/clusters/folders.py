"""Write a folder per cluster, with links to its photos or copies of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, FacemillError
from ..files import make_folder, storage_error
from ..folders import check_folder, fill_folder
from ..progress import Listener, track
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
    """

    folders: int
    photos: int
    missing: int


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
) -> FolderCounts:
    """Write `cluster-00001`, `cluster-00002` ... with a link to, or a copy of, each photo.

    An entry has the name of its photo, to the byte. The second photo of one name in a cluster ends in -2.

    Args:
        path: the folder; see `folders.fill_folder`.
        embeddings: the file that was clustered.
        clusters: clusters of its rows.
        mode: one of MODES. A symbolic link names the absolute path; a hard link needs the same file system.
        min_rows: skip clusters with fewer rows.
        force: replace the content of the folder, if facemill wrote it.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        ConfigError: hard links are not possible there.
        OutputExistsError: the folder holds something else, or `force` is false.
        StorageError, DiskFullError: the folder cannot be written.
    """
    count = clusters.count_at_least(min_rows)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=embeddings.path):
        record_start(embeddings.path, path)
        try:
            photos, missing = _fill(os.fsencode(path), embeddings, clusters, count, _LINK[mode], listener)
        except OSError as err:
            if mode == "hardlink" and err.errno in _NO_HARDLINK_ERRORS:
                raise ConfigError(
                    f"hard links to the photos cannot be created in {path} ({err.strerror}); expected: one file "
                    f"system. Use --mode copy, or --mode symlink"
                ) from err
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, "the cluster folders", path) from err
    record_page(embeddings.path, path)
    return FolderCounts(count, photos, missing)


def _fill(
    top: bytes,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    count: int,
    link: Callable[[bytes, bytes], None],
    listener: Listener | None,
) -> tuple[int, int]:
    """Write clusters 1 to `count`. Returns the number of photos linked, and of photos that are missing."""
    linked = missing = 0
    for number in range(1, count + 1):
        make_folder(Path(os.fsdecode(_folder(top, number))), like=embeddings.path)
    labels = clusters.labels
    selected = np.flatnonzero((labels >= 1) & (labels <= count))  # ascending, the order of reading
    blocks = [selected[start : start + _ROWS_PER_READ] for start in range(0, len(selected), _ROWS_PER_READ)]
    for block in track(blocks, "cluster folders", len(selected), unit="photos", listener=listener):
        rows = block.tolist()
        for row, photo in zip(rows, embeddings.photo_paths(rows), strict=True):
            if not os.path.isfile(photo):
                missing += 1
                continue
            name = _safe_name(os.path.basename(photo), row)
            # Resolve links: a link to a link breaks when the first one moves.
            _link_unique(link, os.path.realpath(photo), _folder(top, int(labels[row])), name)
            linked += 1
    return linked, missing


def _folder(top: bytes, number: int) -> bytes:
    return os.path.join(top, b"cluster-%05d" % number)


def _safe_name(name: bytes, row: int) -> bytes:
    """Return the name of a photo, or `row-N` for a name that would lead out of the folder."""
    return b"row-%d" % row if name in (b"", b".", b"..") else name


def _link_unique(link: Callable[[bytes, bytes], None], photo: bytes, folder: bytes, name: bytes) -> None:
    """Link a photo under its name, or the first free one of name-2, name-3 ..."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, b""
    number = 1
    while True:
        try:
            link(photo, os.path.join(folder, name))
            return
        except FileExistsError:
            number += 1
            end = b"-%d" % number + suffix
            name = stem[: _MAX_NAME_BYTES - len(end)] + end


def _symlink(photo: bytes, target: bytes) -> None:
    os.symlink(photo, target)


def _hardlink(photo: bytes, target: bytes) -> None:
    os.link(photo, target)


def _copy(photo: bytes, target: bytes) -> None:
    with open(photo, "rb") as source, open(target, "xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    shutil.copystat(photo, target)


_LINK: dict[str, Callable[[bytes, bytes], None]] = {"symlink": _symlink, "hardlink": _hardlink, "copy": _copy}
