"""`facemill repair`: save the intact rows of a damaged file."""

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
    from ..maintenance.repair import Repaired


@click.command(name="repair")
@options.file_argument
@click.option("-o", "--output", type=options.PATH, help="Write the repaired file here; FILE stays as it is.")
@options.force_option("Replace an existing output.")
@options.json_option
@handle_errors
def main(file: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Save the intact rows of a damaged FILE.

    Rows are kept that can be read, have length 1 and certainly belong to a photo. The other photos are marked as
    failed, so that `facemill process --retry` (or `facemill add --retry`) embeds them again. Without -o the repaired
    file replaces FILE, and the damaged one is kept beside it as FILE.damaged-1. An intact file is left alone.

    \b
    Examples:
      facemill repair people.h5
      facemill repair people.h5 -o saved.h5
      facemill process photos/ -o people.h5 --retry   # then: embed the lost photos

    Exit codes: 0 repaired or intact, 1 failure, 2 usage.
    """
    setup_logging()
    from ..maintenance.repair import repair

    repaired = repair(file, output, force=force)
    report = "\n".join(map(printable, _report(output or file, repaired)))
    report = json.dumps({"file": str(output or file), **repaired.to_dict()}) if as_json else report
    print_summary(report, f"{output or file} is intact")


def _report(file: Path, repaired: Repaired) -> Iterator[str]:
    if not repaired.findings:
        yield f"{file} is whole: nothing to repair"
        return
    yield from (f"  {finding}" for finding in repaired.findings)
    yield f"{file}: {repaired.embeddings:,} embeddings of {repaired.photographs:,} photos saved"
    yield from (f"  {note}" for note in repaired.notes)
    if repaired.lost:
        yield f"{repaired.lost:,} photos are lost until they are embedded again (--retry):"
        yield from (f"  {name}" for name in repaired.named)
        if repaired.lost > len(repaired.named):
            yield f"  and {repaired.lost - len(repaired.named):,} more"
    if repaired.nameless:
        yield f"{repaired.nameless:,} photos have lost even their names: `facemill add` finds them"
    if repaired.kept:
        yield f"the damaged file is {repaired.kept}; delete it when you no longer need it"
