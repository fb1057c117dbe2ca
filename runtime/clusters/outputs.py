"""Write clusters: as a CSV list, and as `/cluster` into the embedding file itself."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import StorageError
from ..files import check_output
from ..index.samerows import same_rows
from ..pairs.checkpoint import checkpoint_plan_path
from ..storage.dataset import edit_file
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from .clusters import Clusters

COLUMN = "cluster"
_LIST_LINES = 250_000  # whose names are in memory at once


def check_list_path(path: Path, *, force: bool) -> None:
    """Say so before the work, not after it, when the list could not be written.

    Raises:
        ConfigError: the name does not end in .csv, or the folder is missing.
        OutputExistsError: the file exists and is not to be replaced.
    """
    check_output(path, "the list", (".csv",), force=force)


def write_list(path: Path, gallery: EmbeddingFile, clusters: Clusters) -> None:
    """Write `cluster,size,score,row,path` for all rows, and `face_index` where the file has faces.

    Args:
        path: replaced whole or not at all.
        gallery: the file that was clustered.
        clusters: of its rows.
    Raises:
        StorageError, DiskFullError: an existing file stays.
    """
    faces = ("face_index",) if gallery.has_faces else ()
    with derived_file(gallery.path, path, "the list") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("cluster", "size", "score", "row", "path", *faces))
        for start in range(0, gallery.rows, _LIST_LINES):
            rows = clusters.order[start : start + _LIST_LINES]
            of = clusters.of[rows].tolist()
            found = zip(
                of,
                (int(clusters.sizes[number - 1]) if number else 0 for number in of),
                (f"{score:.4f}" for score in clusters.scores[rows].tolist()),
                rows.tolist(),
                gallery.names(rows.tolist()),
                strict=True,
            )
            if faces:
                ranks = (place.index if place else "" for place in gallery.face_places(rows.tolist()))
                lines.writerows((*line, rank) for line, rank in zip(found, ranks, strict=True))
            else:
                lines.writerows(found)
        text.detach()


def write_column(file: Path, clusters: Clusters, run_id: str) -> None:
    """Write `/cluster` into an embedding file, in place of an earlier one; the file is replaced whole, see `edit_file`.

    Indexes beside it are its indexes still, and an unfinished search for pairs goes on.

    Args:
        file: a finished file; a link is followed.
        clusters: of its rows.
        run_id: of the file that was clustered.
    Raises:
        LockedError: a run is writing the file.
        StorageError: it is another file by now.
        DiskFullError, StorageError: the file is as it was.
    """
    with same_rows(file, checkpoint_plan_path(file)), edit_file(file) as target:
        if str(target["metadata"].attrs["run_id"]) != run_id or len(target["embeddings"]) != len(clusters.of):
            raise StorageError(f"{file} has changed while its rows were put together. Run the same command again")
        if COLUMN in target:
            del target[COLUMN]
        column = target.create_dataset(
            COLUMN, data=clusters.of, maxshape=(None,), compression="gzip", compression_opts=1, fletcher32=True
        )
        column.attrs["method"] = clusters.method
        if clusters.k is None:
            column.attrs["threshold"] = clusters.threshold
        else:
            column.attrs["k"] = clusters.k
        column.attrs["seed"] = clusters.seed
        column.attrs["clusters"] = clusters.count
        column.attrs["made_utc"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        column.attrs["tool_version"] = __version__
