"""`facemill add`: embed new photos into an existing file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..sources.kinds import passed_over_text
from ..text import printable
from . import groups, options
from .common import handle_errors, print_summary, setup_logging, terminal

if TYPE_CHECKING:
    from ..maintenance.add import Added


@click.command(name="add")
@options.file_argument
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@options.file_engine_option
@click.option("--retry", is_flag=True, help="Embed photos again that FILE has with a failed outcome.")
@groups.pattern_options
@groups.segment_options
@options.log_option
@options.json_option
@handle_errors
def main(
    file: Path,
    photos: tuple[str, ...],
    engine: Path | None,
    retry: bool,
    patterns: groups.PatternOptions,
    segments: groups.SegmentOptions,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """Embed the photos of PHOTOS that FILE does not have, and put them into it.

    PHOTOS are folders, files and @lists as for `facemill process`. A photo that FILE has under the same path is
    skipped, whatever its content is now. The others are embedded as those of FILE were, with the same engine, detector,
    options for faces and --dtype. If FILE was made with --skip-duplicates, a file that it has to the byte becomes a
    duplicate. Rows stay in order by path; if PHOTOS are outside its root, the root becomes the folder above both.

    The command may be stopped or killed at any moment: FILE stays complete, and the same command resumes.

    \b
    Examples:
      facemill add people.h5 photos/
      facemill add people.h5 photos/today/ --log add.log
      facemill add people.h5 photos/ --retry

    Exit codes: 0 finished, 1 failure, 2 usage, 129, 130 and 143 stopped by a signal.
    """
    setup_logging(log_file=log_file)
    from ..api.jobs import add

    with terminal() as job:
        added = add(
            file, photos, engine=engine, retry=retry, patterns=patterns.patterns(), segments=segments.rules(), **job
        )
    report = "\n".join(map(printable, _report(file, added)))
    report = json.dumps({**added.to_dict(), "file": str(file)}) if as_json else report
    print_summary(report, f"the photos are added to {file}")


def _report(file: Path, added: Added) -> Iterator[str]:
    outcomes = ", ".join(f"{name} {count:,}" for name, count in added.outcomes.items())
    yield (
        f"{file}: {added.added:,} photos added{f' ({outcomes})' if outcomes else ''}; "
        f"{added.known:,} of the {added.scanned:,} photos were in it already"
    )
    if added.passed_over:
        yield f"  {passed_over_text(tuple(added.passed_over.items()))}"
    yield f"  it holds {added.embeddings:,} embeddings of {added.photographs:,} photos below {added.root}"
    if added.root != added.root_before:
        yield f"  all its paths were below {added.root_before} before, and are longer now"
    yield from (f"  dropped, because rows have changed: /{name}" for name in added.dropped)
