"""Write a folder per cluster, with links to its photos or copies of them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import make_folder, sync_folder
from ..folders import check_folder, fill_folder
from ..pairs.outputs import Ready
from ..progress import Listener, track
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from .clusters import Clusters
from .placing import Place, Placed, place_unique, placer, placing_error, safe_name

KIND = "cluster folders"
_ENTRIES = r"cluster-\d{5,}"
_ROWS_PER_READ = 10_000


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
    the content and the time of its photo. It belongs to the owner of the embedding file, without a setuid bit, and only
    users who may read both that file and the photo may read it.

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
            counts = _fill(os.fsencode(path), embeddings, clusters, count, placer(mode, embeddings), listener)
        except OSError as err:
            raise placing_error(err, "the cluster folders", path, mode) from err
    record_page(embeddings, path)
    return FolderCounts(count, counts[Placed.WRITTEN], counts[Placed.MISSING], counts[Placed.REFUSED])


def _fill(
    top: bytes,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    count: int,
    place: Place,
    listener: Listener | None,
) -> Counter[Placed]:
    """Write clusters 1 to `count`."""
    counts: Counter[Placed] = Counter()
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
            name = safe_name(os.path.basename(photo), row)
            counts[place_unique(place, photo, _folder(top, int(labels[row])), name)] += 1
    for number in range(1, count + 1):
        sync_folder(Path(os.fsdecode(_folder(top, number))))  # before the mark that says that all is there
    return counts


def _folder(top: bytes, number: int) -> bytes:
    return os.path.join(top, b"cluster-%05d" % number)
