"""`facemill verify`: is this file whole?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..text import printable
from .common import handle_errors, setup_logging


@click.command(name="verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@handle_errors
def main(file: Path, as_json: bool) -> None:
    """Read all of FILE and say whether it is whole.

    Every checksum is checked; outcomes, counts, paths, faces and the contract are compared with each other; every row
    has length 1. Nothing is written.

    \b
    Examples:
      facemill verify people.h5
      facemill verify people.h5 --json

    Exit codes: 0 whole, 1 damaged (or no embedding file), 2 usage.
    """
    setup_logging()
    from ..storage.verify import verify_file

    found = verify_file(file)
    if as_json:
        click.echo(json.dumps({"file": str(file), "whole": not found.findings, **asdict(found)}))
    else:
        click.echo(f"{printable(str(file))}: {found.embeddings:,} embeddings of {found.photographs:,} photographs")
        if found.zeros:
            click.echo(f"  {found.zeros:,} of them are zeros, for which the network answered zero: they match nobody")
        for finding in found.findings:
            click.echo(f"  {printable(finding)}")
        mend = f"damaged: restore it from a copy, or save what is whole: facemill repair {printable(str(file))}"
        click.echo(mend if found.findings else "whole")
    if found.findings:
        raise SystemExit(1)
