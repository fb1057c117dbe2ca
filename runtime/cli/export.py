"""`facemill export`: the embeddings for other programs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..text import printable
from . import options
from .common import handle_errors, print_summary, setup_logging


@click.command(name="export")
@options.file_argument
@click.option("--npy", type=options.PATH, metavar="DIR", help="Folder to create for NumPy arrays.")
@click.option("--parquet", type=options.PATH, metavar="OUT", help="Parquet file to write.")
@click.option("--qdrant", metavar="URL", help="Qdrant server, http(s)://HOST:6333; path:FOLDER for a trial.")
@click.option("--collection", metavar="NAME", help="Collection of Qdrant.  [default: FILE's name without its suffix]")
@click.option("--recreate", is_flag=True, help="Delete the collection first, whatever it holds.")
@options.force_option("Replace an existing file, or the folder of an earlier export.")
@handle_errors
def main(
    file: Path,
    npy: Path | None,
    parquet: Path | None,
    qdrant: str | None,
    collection: str | None,
    recreate: bool,
    force: bool,
) -> None:
    """Write the embeddings in FILE as NumPy arrays, as a Parquet file, or into Qdrant.

    FILE is an embedding file of `facemill process`; it stays as it is. Give exactly one of --npy, --parquet and
    --qdrant. A folder or file appears complete or not at all. Points that Qdrant has are not sent again: the same
    command resumes. The API key is that of the environment variable QDRANT_API_KEY. --parquet needs pyarrow (the extra
    `parquet`), --qdrant needs qdrant-client (the extra `qdrant`).

    An export shows people and leaves FILE's reach: `facemill remove` finds folders and files that are still where they
    were written, and no points in Qdrant (docs/export.md says how to delete those).

    \b
    Examples:
      facemill export people.h5 --npy people_npy
      facemill export people.h5 --parquet people.parquet --force
      facemill export people.h5 --qdrant http://localhost:6333 --collection people

    Exit codes: 0 exported, 1 failure, 2 usage.
    """
    if (npy, parquet, qdrant).count(None) != 2:
        raise click.UsageError("expected: exactly one of --npy, --parquet and --qdrant")
    if qdrant is None and (collection is not None or recreate):
        raise click.UsageError("--collection and --recreate are for --qdrant")
    if qdrant is not None and force:
        raise click.UsageError("--force is for --npy and --parquet; a collection is replaced with --recreate")
    setup_logging()
    from ..export.npy import export_npy
    from ..export.parquet import export_parquet
    from ..export.qdrant import export_qdrant
    from ..storage.file import EmbeddingFile

    with EmbeddingFile(file) as gallery:
        facts = f"{gallery.rows:,} embeddings of {gallery.dimension} dimensions"
        if npy is not None:
            export_npy(gallery, npy, force=force)
        if parquet is not None:
            export_parquet(gallery, parquet, force=force)
        if qdrant is not None:
            collection = collection or file.stem
            key = os.environ.get("QDRANT_API_KEY", "")
            done = export_qdrant(gallery, qdrant, collection, recreate=recreate, key=key)
            facts += (
                f"; {done.sent:,} points sent, {done.kept:,} there already, {done.points:,} in the collection, "
                f"revision {done.revision}"
            )
        warning = str(gallery.metadata.get("warning", ""))
    if warning:
        click.echo(f"WARNING: {warning}", err=True)
    exported = str(npy or parquet or collection)
    print_summary(f"{printable(exported)}: {facts}", f"the rows of {file} are exported to {exported}")
