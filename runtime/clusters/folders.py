"""A folder for each cluster, with links to its photographs, or copies of them."""

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
_NAME_BYTES = 255  # of a file name, in every usual file system
_ROWS = 10_000  # whose paths are in memory at once
_SUFFIX_BYTES = 16  # what is longer is no suffix
_NO_HARDLINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True, slots=True)
class FolderCounts:
    """What `write_folders` made.

    Attributes:
        folders, photographs: in all.
        missing: photographs that are no files any more.
    """

    folders: int
    photographs: int
    missing: int


def check_folders(path: Path, *, force: bool) -> None:
    """Check, before the work, that the folder can be filled; see `folders.check_folder`."""
    check_folder(path, KIND, _ENTRIES, force=force)


def write_folders(
    path: Path,
    gallery: EmbeddingFile,
    clusters: Clusters,
    *,
    mode: str,
    least: int = 2,
    force: bool = False,
    listener: Listener | None = None,
) -> FolderCounts:
    """Make `cluster-00001`, `cluster-00002` ... with a link to, or a copy of, each photograph.

    An entry has the name of its photograph, to the byte; the second one of that name in a cluster ends in -2.

    Args:
        path: the folder; see `folders.fill_folder`.
        gallery: the file that was clustered.
        clusters: of its rows.
        mode: one of MODES. A symbolic link names the absolute path; a hard link needs the same file system.
        least: clusters with fewer rows are left out.
        force: replace what the folder holds, if it is facemill's.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        ConfigError: hard links cannot be made there.
        OutputExistsError, StorageError, DiskFullError: as their messages say.
    """
    shown = clusters.with_at_least(least)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=gallery.path):
        record_start(gallery.path, path)
        try:
            done, missing = _fill(os.fsencode(path), gallery, clusters, shown, _PLACE[mode], listener)
        except OSError as err:
            if mode == "hardlink" and err.errno in _NO_HARDLINK:
                raise ConfigError(
                    f"hard links to the photographs cannot be made in {path} ({err.strerror}): they need one file "
                    f"system. Use --mode copy, or --mode symlink"
                ) from err
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, "the cluster folders", path) from err
    record_page(gallery.path, path)
    return FolderCounts(shown, done, missing)


def _fill(
    top: bytes,
    gallery: EmbeddingFile,
    clusters: Clusters,
    shown: int,
    place: Callable[[bytes, bytes], None],
    listener: Listener | None,
) -> tuple[int, int]:
    """Make the folders and all that is in them; how many photographs were placed, and how many are gone."""
    done = missing = 0
    for number in range(1, shown + 1):
        make_folder(Path(os.fsdecode(_folder(top, number))), like=gallery.path)
    of = clusters.of
    wanted = np.flatnonzero((of >= 1) & (of <= shown))  # ascending: as the file is read
    blocks = [wanted[start : start + _ROWS] for start in range(0, len(wanted), _ROWS)]
    for block in track(blocks, "cluster folders", len(wanted), unit="photos", listener=listener):
        rows = block.tolist()
        for row, photograph in zip(rows, gallery.photo_paths(rows), strict=True):
            if not os.path.isfile(photograph):
                missing += 1
                continue
            name = _harmless(os.path.basename(photograph), row)
            _put(place, os.path.realpath(photograph), _folder(top, int(of[row])), name)  # a link to a link misleads
            done += 1
    return done, missing


def _folder(top: bytes, number: int) -> bytes:
    return os.path.join(top, b"cluster-%05d" % number)


def _harmless(name: bytes, row: int) -> bytes:
    """The name of a photograph, or another one where it would lead out of the folder."""
    return b"row-%d" % row if name in (b"", b".", b"..") else name


def _put(place: Callable[[bytes, bytes], None], photograph: bytes, folder: bytes, name: bytes) -> None:
    """Under its name, or the first free one of name-2, name-3 ..."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _SUFFIX_BYTES:
        stem, suffix = name, b""
    number = 1
    while True:
        try:
            place(photograph, os.path.join(folder, name))
            return
        except FileExistsError:
            number += 1
            end = b"-%d" % number + suffix
            name = stem[: _NAME_BYTES - len(end)] + end


def _symlink(photograph: bytes, target: bytes) -> None:
    os.symlink(photograph, target)


def _hardlink(photograph: bytes, target: bytes) -> None:
    os.link(photograph, target)


def _copy(photograph: bytes, target: bytes) -> None:
    with open(photograph, "rb") as source, open(target, "xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    shutil.copystat(photograph, target)


_PLACE: dict[str, Callable[[bytes, bytes], None]] = {"symlink": _symlink, "hardlink": _hardlink, "copy": _copy}
