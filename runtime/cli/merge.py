"""`facemill merge`: join several embedding files into one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from . import options
from .common import handle_errors, print_summary, setup_logging

if TYPE_CHECKING:
    from ..maintenance.merge import Merged


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
    report = "\n".join(map(printable, _report(output, merged)))
    report = json.dumps({**merged.to_dict(), "output": str(output)}) if as_json else report
    print_summary(report, f"{output} is written")


def _report(output: Path, merged: Merged) -> Iterator[str]:
    yield f"{output}: {merged.embeddings:,} embeddings of {merged.photographs:,} photos below {merged.root}"
    if merged.doubles:
        yield f"  {merged.doubles:,} photos were in several files: taken from the file named first"
    yield from (f"  left out, since rows have changed: /{name}" for name in merged.dropped)
