"""`facemill verify`: check whether a file is intact."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable
from . import options
from .common import handle_errors, setup_logging


@click.command(name="verify")
@options.file_argument
@options.json_option
@handle_errors
def main(file: Path, as_json: bool) -> None:
    """Read all of FILE and say whether it is intact.

    Every checksum is checked; outcomes, counts, paths, faces and the contract are compared with each other; every row
    must have length 1. The indexes beside FILE are compared with it. Nothing is written.

    \b
    Examples:
      facemill verify people.h5
      facemill verify people.h5 --json

    Exit codes: 0 intact, 1 the file or an index is damaged (or no embedding file), 2 usage.
    """
    setup_logging()
    from ..maintenance.verify import verify

    verified = verify(file)
    if as_json:
        click.echo(json.dumps({"file": str(file), **verified.to_dict()}))
    else:
        click.echo(f"{printable(str(file))}: {verified.embeddings:,} embeddings of {verified.photographs:,} photos")
        if verified.zeros:
            click.echo(
                f"  {verified.zeros:,} of them are zeros, for which the network answered zero: they match no photo"
            )
        for finding in (*verified.findings, *verified.indexes):
            click.echo(f"  {printable(finding)}")
        repair = f"damaged: restore it from a copy, or save its intact rows: facemill repair {printable(str(file))}"
        index = "the file is whole, an index beside it is not"
        click.echo(repair if verified.findings else index if verified.indexes else "whole")
    if verified.findings or verified.indexes:
        raise SystemExit(1)
