"""`facemill doctor`: examine this machine, and show how to fix missing packages and files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..doctor.examine import Examination

_MARKS = {
    "ok": ("ok", "green"),
    "missing": ("MISSING", "red"),
    "wrong": ("WRONG", "red"),
    "info": ("-", "bright_black"),
}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print all findings as one line of JSON.")
@click.option(
    "--disk",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder whose disk is measured: 64 MiB are written and removed.",
)
@handle_errors
def main(as_json: bool, disk: Path) -> None:
    """Say what this machine has, which backends run on it, and the command that fixes each missing thing.

    Exit codes: 0 when facemill would run on the CPU, 1 when it would not.

    \b
    Examples:
      facemill doctor
      facemill doctor --disk /data --json
    """
    setup_logging()
    from ..doctor.examine import examine

    examination = examine(disk.absolute())
    if as_json:
        click.echo(examination.as_json())
    else:
        _show(examination)
    sys.exit(0 if examination.healthy else 1)


def _show(examination: Examination) -> None:
    width = max(len(f.topic) for group in examination.sections.values() for f in group)
    for name, group in examination.sections.items():
        click.secho(f"\n{name}", bold=True)
        for finding in group:
            mark, colour = _MARKS[finding.state]
            click.echo(f"  {click.style(f'{mark:<8}', fg=colour)}{finding.topic:<{width}}  {printable(finding.text)}")
            if finding.fix:
                click.echo(f"  {'':<8}{'':<{width}}  -> {finding.fix}")
    verdict = (
        "facemill runs on this machine." if examination.healthy else "facemill does not run yet: see MISSING and WRONG."
    )
    click.secho(f"\n{verdict}", bold=True)
