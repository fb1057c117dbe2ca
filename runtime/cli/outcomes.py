"""`facemill outcomes`: list the photos of a file that have no embedding, and why."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import click

from ..text import printable
from . import options
from .common import handle_errors, setup_logging

# The labels of records.Status: that module needs NumPy, and --help must answer at once.
STATUSES = (
    "embedded", "corrupt", "unsupported", "unreadable", "duplicate", "no-face", "low-quality", "multiple-faces",
)  # fmt: skip


@click.command(name="outcomes")
@options.file_argument
@click.option(
    "--status",
    "labels",
    multiple=True,
    type=click.Choice(STATUSES),
    help="List photos with this outcome; may be repeated.  [default: all but embedded]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per photo.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per photo, after a header.")
@options.csv_safe_option
@options.exclusive("--json", "--csv")
@handle_errors
def main(file: Path, labels: tuple[str, ...], as_json: bool, as_csv: bool, csv_safe: bool) -> None:
    """List the photos of FILE that have no embedding, each with its outcome and the reason.

    Photos are listed in scan order, by their paths below the root of FILE. The outcomes: corrupt, unsupported,
    unreadable, no-face, low-quality and multiple-faces, which `facemill process --retry` tries again; duplicate; and
    embedded, whose reason is a note, mostly empty. The counts go to stderr. Nothing is written.

    \b
    Examples:
      facemill outcomes people.h5
      facemill outcomes people.h5 --status no-face --status low-quality
      facemill outcomes people.h5 --csv > failed.csv

    Exit codes: 0 listed, 1 failure, 2 usage.
    """
    setup_logging()
    from ..csvtable import CsvTable
    from ..records import Status
    from ..storage.file import EmbeddingFile
    from ..storage.outcomes import NOT_EMBEDDED, read_outcomes

    statuses = [status for status in Status if status.label in labels] or NOT_EMBEDDED
    counts: Counter[str] = Counter()
    with EmbeddingFile(file) as embeddings:
        table = CsvTable(sys.stdout, safe=csv_safe, clean=printable if sys.stdout.isatty() else None)
        if as_csv:
            table.row(("photo", "path", "status", "detail"))
        for outcome in read_outcomes(embeddings, statuses):
            values = outcome.to_dict()
            counts[outcome.status.label] += 1
            if as_csv:
                table.row(values.values())
            elif as_json:
                sys.stdout.write(json.dumps(values) + "\n")  # ASCII only, so no name can break a line
            else:
                reason = f": {outcome.detail}" if outcome.detail else ""
                sys.stdout.write(printable(f"{outcome.status.label:<14}  {outcome.path}{reason}") + "\n")
        sys.stdout.flush()
        listed = "".join(f", {label} {count:,}" for label, count in sorted(counts.items()))
        click.echo(f"{counts.total():,} of {len(embeddings.status):,} photos listed{listed}", err=True)
