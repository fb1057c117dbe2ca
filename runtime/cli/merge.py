"""`facemill merge`: several embedding files into one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..text import printable
from .common import handle_errors, setup_logging


@click.command(name="merge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A B...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The joined file.")
@click.option("--prefer", type=click.Choice(["first"]), help="Of a photograph in several files: take the first file's.")
@click.option("--force", is_flag=True, help="Replace the output once the new one is whole.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@handle_errors
def main(files: tuple[Path, ...], output: Path, prefer: str | None, force: bool, as_json: bool) -> None:
    """Join embedding files A, B and more into one.

    They must hold embeddings of one kind: model, precision, rules for faces and --dtype agree, or the differences are
    named. Rows and outcomes are put in order by path, below the folder that all photographs are below. A photograph
    that is in two of them is an error, unless --prefer says which to take. A and B are only read.

    \b
    Examples:
      facemill merge north.h5 south.h5 -o people.h5
      facemill merge people.h5 again.h5 -o both.h5 --prefer first

    Exit codes: 0 joined, 1 failure, 2 usage.
    """
    if len(files) < 2:
        raise click.UsageError("one file was named; wanted: two or more")
    setup_logging()
    from ..maintenance.merge import merge

    found = merge(files, output, prefer_first=prefer == "first", force=force)
    if as_json:
        click.echo(json.dumps({**asdict(found), "output": str(output)}))
        return
    click.echo(
        f"{printable(str(output))}: {found.embeddings:,} embeddings of {found.photographs:,} photographs below "
        f"{printable(found.root)}"
    )
    if found.doubles:
        click.echo(f"  {found.doubles:,} photographs were in several files: taken from the one named first")
    for name in found.dropped:
        click.echo(f"  left out, since rows have changed: /{printable(name)}")
