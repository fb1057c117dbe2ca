"""`facemill export`: the embeddings for other programs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..text import printable
from .common import handle_errors, setup_logging


@click.command(name="export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--npy", type=click.Path(path_type=Path), metavar="DIR", help="A folder of NumPy arrays to make.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="OUT", help="A Parquet file to write.")
@click.option("--qdrant", metavar="URL", help="A server of Qdrant, http(s)://HOST:6333; or path:FOLDER for a trial.")
@click.option("--collection", metavar="NAME", help="Of Qdrant.  [default: FILE's name without its ending]")
@click.option("--recreate", is_flag=True, help="Delete the collection first, whatever it holds.")
@click.option("--force", is_flag=True, help="Replace an existing file, or the folder of an earlier export.")
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

    FILE is an embedding file of `facemill process`; it stays as it is. Exactly one of --npy, --parquet and --qdrant is
    wanted. A folder or file appears whole or not at all. What was put into Qdrant before is not sent again: the same
    command goes on where it stopped. Its API key is taken from the environment, QDRANT_API_KEY. --parquet needs
    pyarrow (the extra `parquet`), --qdrant needs qdrant-client (the extra `qdrant`).

    What is exported shows people and goes where FILE does not reach: `facemill remove` finds folders and files that
    lie where they were written, and no points in Qdrant (docs/export.md says how they are deleted).

    \b
    Examples:
      facemill export people.h5 --npy people_npy
      facemill export people.h5 --parquet people.parquet --force
      facemill export people.h5 --qdrant http://localhost:6333 --collection people

    Exit codes: 0 exported, 1 failure, 2 usage.
    """
    if (npy, parquet, qdrant).count(None) != 2:
        raise click.UsageError("exactly one of --npy, --parquet and --qdrant is wanted")
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
    click.echo(f"{printable(str(npy or parquet or collection))}: {facts}")
