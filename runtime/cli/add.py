"""`facemill add`: today's photographs into the file of the others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..text import printable
from .common import handle_errors, setup_logging
from .engines import given_engine


@click.command(name="add")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--engine", type=click.Path(path_type=Path), help="An engine file, if the one that FILE names is gone.")
@click.option("--retry", is_flag=True, help="Also embed again what FILE has with a failed outcome.")
@click.option("--segment-rows", type=click.IntRange(min=1), default=250_000, show_default=True, hidden=True)
@click.option("--segment-seconds", type=click.FloatRange(min=0.1), default=60.0, show_default=True, hidden=True)
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Also write the log to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON on stdout.")
@handle_errors
def main(
    file: Path,
    photos: tuple[str, ...],
    engine: Path | None,
    retry: bool,
    segment_rows: int,
    segment_seconds: float,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """Embed the photographs of PHOTOS that FILE does not have, and put them into it.

    PHOTOS are folders, files and @lists as for `facemill process`. A photograph that FILE has under the same path is
    passed over, whatever is in it now. The others are embedded as those of FILE were: engine, detector, rules for faces
    and --dtype are FILE's own. Where it was made with --skip-duplicates, a file that it has to the byte becomes a
    duplicate. Rows stay in order by path; if PHOTOS lie outside its root, the root becomes the folder above both.

    It may be stopped or killed at any moment: FILE is whole, and the same command goes on.

    \b
    Examples:
      facemill add people.h5 photos/
      facemill add people.h5 photos/today/ --log add.log
      facemill add people.h5 photos/ --retry

    Exit codes: 0 finished, 1 failure, 2 usage, 130 and 143 stopped by signal.
    """
    setup_logging(log_file=log_file)
    from ..interrupt import SignalControl
    from ..maintenance.add import add
    from ..progress import LiveLine
    from ..storage.segments import SegmentRules

    with SignalControl() as control:
        found = add(
            file,
            photos,
            engine=given_engine(engine),
            retry=retry,
            rules=SegmentRules(segment_rows, segment_seconds),
            listener=LiveLine(),
            control=control,
        )
    if as_json:
        click.echo(json.dumps({**asdict(found), "file": str(file)}))
        return
    outcomes = ", ".join(f"{name} {count:,}" for name, count in found.outcomes.items())
    click.echo(
        f"{printable(str(file))}: {found.added:,} photographs added{f' ({outcomes})' if outcomes else ''}; "
        f"{found.known:,} of the {found.scanned:,} found were in it already"
    )
    click.echo(
        f"  it holds {found.embeddings:,} embeddings of {found.photographs:,} photographs below {printable(found.root)}"
    )
    if found.root != found.root_before:
        click.echo(f"  all its paths began below {printable(found.root_before)} before, and are longer now")
    for name in found.dropped:
        click.echo(f"  dropped, since rows have changed: /{printable(name)}")
