"""`facemill repair`: what is whole of a damaged file, saved."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..text import printable
from .common import handle_errors, setup_logging


@click.command(name="repair")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the repaired file here; FILE stays.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@handle_errors
def main(file: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Save what is whole of a damaged FILE.

    Rows that can be read, have length 1 and certainly belong to a photograph are kept. The other photographs are marked
    as failed, so that `facemill process --retry` (or `facemill add --retry`) embeds them again. Without -o the repaired
    file takes FILE's place, and the damaged one is kept beside it as FILE.damaged-1. A whole file is left alone.

    \b
    Examples:
      facemill repair people.h5
      facemill repair people.h5 -o saved.h5
      facemill process photos/ -o people.h5 --retry   # then: what was lost

    Exit codes: 0 repaired or whole, 1 failure, 2 usage.
    """
    setup_logging()
    from ..maintenance.repair import repair

    found = repair(file, output, force=force)
    if as_json:
        click.echo(json.dumps({"file": str(output or file), "whole": not found.findings, **asdict(found)}))
        return
    if not found.findings:
        click.echo(f"{printable(str(file))} is whole: nothing to repair")
        return
    for finding in found.findings:
        click.echo(f"  {printable(finding)}")
    click.echo(
        f"{printable(str(output or file))}: {found.embeddings:,} embeddings of {found.photographs:,} photographs saved"
    )
    for note in found.notes:
        click.echo(f"  {printable(note)}")
    if found.lost:
        click.echo(f"{found.lost:,} photographs are lost until they are embedded again (--retry):")
        for name in found.named:
            click.echo(f"  {printable(name)}")
        if found.lost > len(found.named):
            click.echo(f"  and {found.lost - len(found.named):,} more")
    if found.nameless:
        click.echo(f"{found.nameless:,} photographs have lost even their names: `facemill add` finds them")
    if found.kept:
        click.echo(f"the damaged file is {printable(found.kept)}; delete it when you need it no more")
