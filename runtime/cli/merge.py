"""`facemill merge`: join several embedding files into one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable
from . import options
from .common import handle_errors, setup_logging


@click.command(name="merge")
@click.argument("files", nargs=-1, required=True, type=options.PATH, metavar="A B...")
@click.option("-o", "--output", required=True, type=options.PATH, help="Joined file to write.")
@click.option("--prefer", type=click.Choice(["first"]), help="Take a photo that is in several files from the first.")
@options.force_option("Replace the output once the new file is complete.")
@options.json_option
@handle_errors
def main(files: tuple[Path, ...], output: Path, prefer: str | None, force: bool, as_json: bool) -> None:
    """Join embedding files A, B and more into one.

    They must hold embeddings of one kind: model, precision, options for faces and --dtype must agree, or the
    differences are named. Rows and outcomes are put in order by path, below the folder that all photos are below. A
    photo that is in two of the files is an error, unless --prefer says which to take. A and B are only read.

    \b
    Examples:
      facemill merge north.h5 south.h5 -o people.h5
      facemill merge people.h5 again.h5 -o both.h5 --prefer first

    Exit codes: 0 joined, 1 failure, 2 usage.
    """
    if len(files) < 2:
        raise click.UsageError("got one file; expected: two or more")
    setup_logging()
    from ..maintenance.merge import merge

    merged = merge(files, output, prefer_first=prefer == "first", force=force)
    if as_json:
        click.echo(json.dumps({**merged.to_dict(), "output": str(output)}))
        return
    click.echo(
        f"{printable(str(output))}: {merged.embeddings:,} embeddings of {merged.photographs:,} photos below "
        f"{printable(merged.root)}"
    )
    if merged.doubles:
        click.echo(f"  {merged.doubles:,} photos were in several files: taken from the file named first")
    for name in merged.dropped:
        click.echo(f"  left out, since rows have changed: /{printable(name)}")
