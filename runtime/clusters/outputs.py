"""Write clusters as a CSV list, and as `/cluster` into the embedding file itself."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..csvtable import CsvTable
from ..errors import StorageError
from ..index.samerows import same_rows
from ..outputs import check_output
from ..pairs.checkpoint import checkpoint_plan_path
from ..pairs.outputs import Ready
from ..review.rows import RowRules
from ..storage.dataset import edit_file
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from .clusters import Clusters

COLUMN = "cluster"
COLUMN_BEFORE_REVIEW = "cluster_before_review"  # the numbers without the decisions of people, if these changed any
_ROWS_PER_READ = 250_000  # names in memory at once


def check_list_path(path: Path, *, force: bool) -> None:
    """Check, before the work, that the list can be written.

    Raises:
        ConfigError: the name does not end in .csv, or the folder does not exist.
        OutputExistsError: the file exists and `force` is false.
    """
    check_output(path, "the list", (".csv",), force=force)


def write_list(
    path: Path,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    *,
    csv_safe: bool = False,
    rules: RowRules | None = None,
    ready: Ready = lambda status: None,
) -> None:
    """Write `cluster,size,score,row,path` for all rows, and `face_index`, `page` and `name` as far as there are any.

    Args:
        path: replaced atomically.
        embeddings: the file that was clustered.
        clusters: clusters of its rows.
        csv_safe: write no text that a spreadsheet takes for a formula.
        rules: the decisions about the rows, which name clusters; None for no names.
        ready: see `storage.derived.derived_file`.
    Raises:
        StorageError, DiskFullError: the list cannot be written; an existing file is unchanged.
    """
    faces = ["face_index", *(["page"] if embeddings.has_pages else [])] if embeddings.has_faces else []
    names = {} if rules is None else rules.cluster_names(clusters.labels)
    with derived_file(embeddings, path, "the list", ready=ready) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        lines = CsvTable(text, safe=csv_safe)
        lines.row(("cluster", "size", "score", "row", "path", *faces, *(["name"] if names else [])))
        for start in range(0, embeddings.rows, _ROWS_PER_READ):
            rows = clusters.order[start : start + _ROWS_PER_READ]
            labels = clusters.labels[rows].tolist()
            columns: list[Iterable[Any]] = [
                labels,
                (int(clusters.sizes[number - 1]) if number else 0 for number in labels),
                (f"{score:.4f}" for score in clusters.scores[rows].tolist()),
                rows.tolist(),
                embeddings.names(rows.tolist()),
            ]
            if faces:
                places = [place.to_dict() if place else {} for place in embeddings.face_places(rows.tolist())]
                columns += [[place.get(name) for place in places] for name in faces]
            if names:
                columns.append(names.get(number, "") for number in labels)
            lines.rows(zip(*columns, strict=True))
        text.detach()


def write_column(file: Path, clusters: Clusters, run_id: str) -> None:
    """Write `/cluster` into an embedding file, replacing an earlier one. Rewrites the file atomically.

    Indexes beside it stay valid, and an unfinished search for pairs can still resume.

    Args:
        file: a finished file; a link is followed.
        clusters: clusters of its rows.
        run_id: run_id of the file that was clustered.
    Raises:
        LockedError: a run is writing the file.
        DiskFullError, StorageError: writing failed, or the file has changed since; the file is unchanged.
    """
    with same_rows(file, checkpoint_plan_path(file)), edit_file(file) as target:
        if str(target["metadata"].attrs["run_id"]) != run_id or len(target["embeddings"]) != len(clusters.labels):
            raise StorageError(f"{file} changed while its rows were clustered. Run the same command again")
        for name in (COLUMN, COLUMN_BEFORE_REVIEW):
            if name in target:
                del target[name]
        storage = {"maxshape": (None,), "compression": "gzip", "compression_opts": 1, "fletcher32": True}
        column = target.create_dataset(COLUMN, data=clusters.labels, **storage)
        if clusters.before_review is not None:
            target.create_dataset(COLUMN_BEFORE_REVIEW, data=clusters.before_review, **storage)
        column.attrs["method"] = clusters.method
        if clusters.k is None:
            column.attrs["threshold"] = clusters.threshold
        else:
            column.attrs["k"] = clusters.k
        column.attrs["seed"] = clusters.seed
        column.attrs["clusters"] = clusters.count
        column.attrs["made_utc"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        column.attrs["tool_version"] = __version__
