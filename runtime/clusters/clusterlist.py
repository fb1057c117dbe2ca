"""The clusters as CSV: a line for each row, cluster by cluster."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..files import check_output, durable_file
from ..storage.derived import recording
from ..storage.file import EmbeddingFile
from .clusters import Clusters

_LINES = 250_000  # whose names are in memory at once


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
    with recording(gallery.path, path), durable_file(path, "the list") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("cluster", "size", "score", "row", "path", *faces))
        for start in range(0, gallery.rows, _LINES):
            rows = clusters.order[start : start + _LINES]
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
