"""Print what `facemill filter` selected and undid: paths and JSON to stdout, the counts to stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import count, printable

if TYPE_CHECKING:
    from ..api.attributes import FilterReport
    from ..filters.undo import Undone


def print_paths(report: FilterReport, *, zero: bool) -> None:
    """Print the path of each match below the root; or with `zero` each photo once, absolute, to the byte."""
    if zero:
        for photo in report.photo_paths():
            click.echo(photo + b"\0", nl=False)
        return
    click.echo(f"paths below {printable(report.root)}:", err=True)
    for match in report:
        click.echo(printable(match.path))


def print_json(report: FilterReport, *, matches: bool) -> None:
    """Print one line of JSON: the figures, and the matches one by one, because there may be millions."""
    facts = json.dumps(report.to_dict())
    if matches:
        click.echo(facts[:-1] + ', "matches": [', nl=False)
        for number, match in enumerate(report):
            click.echo((", " if number else "") + json.dumps(match.to_dict()), nl=False)
        facts = "]}"
    click.echo(facts)


def print_facts(report: FilterReport, folder: Path | None) -> None:
    """Print how much was selected, and written to the folder."""
    faces = f"{len(report):,} of {count(report.embeddings, 'face')}, in {count(report.photos, 'photo')}"
    click.echo(f"{report.chosen}: {faces}", err=True)
    if report.unread:
        click.echo(f"  {report.unread:,} faces without age or gender are not among them", err=True)
    if report.folders is not None:
        written = report.folders
        already = ", already there: nothing was changed" if written.already else ""
        click.echo(f"  {written.photos:,} photos in {printable(str(folder))}{already}", err=True)
        if written.missing or written.refused:
            click.echo(f"  {written.missing:,} are missing, {written.refused:,} are links or no photos", err=True)
        click.echo(f"  undo it with: facemill filter --undo {printable(written.receipt)}", err=True)


def print_undone(undone: Undone) -> None:
    """Print what was removed, and what stays."""
    if undone.already:
        click.echo(f"{printable(undone.folder)}: already undone; the folder is empty", err=True)
        return
    click.echo(f"{printable(undone.folder)}: {undone.removed:,} photos removed, {undone.gone:,} were gone", err=True)
    for name in undone.kept[:10]:
        why = "maybe the last copy: its original is gone or changed" if name in undone.last else "changed since"
        click.echo(f"  kept ({why}): {printable(name)}", err=True)
    if undone.kept:
        more = f"and {len(undone.kept) - 10:,} more; " if len(undone.kept) > 10 else ""
        click.echo(f"  {more}the receipt stays too: move these away, then run the same command again", err=True)
