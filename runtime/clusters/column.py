"""`/cluster`: the number of each row's cluster, in the embedding file itself."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import StorageError
from ..index.samerows import same_rows
from ..pairs.parts import plan_path
from ..storage.dataset import edit_file
from .clusters import Clusters

COLUMN = "cluster"


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
    with same_rows(file, plan_path(file)), edit_file(file) as target:
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
