"""`facemill process`: embed photos into one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import defaults
from . import groups, options
from .common import handle_errors, print_summary, setup_logging, terminal
from .reports import run_lines

if TYPE_CHECKING:
    pass


@click.command(name="process")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@options.output_option
@groups.engine_options
@groups.face_options
@groups.work_options
@options.attributes_option
@click.option("--skip-duplicates", is_flag=True, help="Embed files that are the same to the byte only once.")
@click.option("--retry", is_flag=True, help="Process failed photos again.")
@groups.pattern_options
@click.option("--limit", type=options.Count(), help="Process only the first N photos, in scan order.")
@click.option(
    "--max-unreadable",
    type=options.Count(0),
    default=defaults.MAX_UNREADABLE,
    show_default=True,
    metavar="N",
    help="Stop where more than N photos in a row cannot be read, because their disk may be gone; 0: never.",
)
@groups.dtype_option
@groups.mode_option
@groups.limit_options
@groups.segment_options
@options.force_option("Start over, and replace the output once the new file is complete.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if any photo failed.")
@options.log_option
@options.json_option
@handle_errors
def main(
    photos: tuple[str, ...],
    output: Path,
    engine: groups.EngineOptions,
    faces: groups.FaceOptions,
    work: groups.WorkOptions,
    limits: groups.LimitOptions,
    segments: groups.SegmentOptions,
    patterns: groups.PatternOptions,
    strict: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Embed face photos into one searchable file.

    PHOTOS are folders (with all folders below), single files, or @list.txt (one path per line, relative to the list).
    In a folder, a file is a photo by its ending or else by its first bytes; what is passed over is counted by kind. A
    run may be stopped or killed at any moment: the same command resumes it. SIGUSR1 pauses a run and resumes it.

    \b
    Examples:
      facemill process photos/ -o people.h5
      facemill process crops/ --align none               # aligned crops: no detector is needed
      facemill process photos/ --attributes age,gender   # see docs/attributes.md

    Exit codes: 0 finished, 1 failure (or failed photos with --strict), 2 usage, 129, 130, 143 stopped by a signal.
    """
    setup_logging(log_file=given.pop("log_file"))
    from ..api.jobs import process

    with terminal() as job:
        given |= {"faces": faces.rules(), "limits": limits.limits(), "segments": segments.rules()}
        given |= {"patterns": patterns.patterns(), "detector": faces.detector, "landmarks": faces.landmarks}
        summary = process(photos, output, **engine.values(), **work.values(), **job, **given)
    click.echo("\n".join(run_lines(summary)), err=True)
    if as_json:
        print_summary(json.dumps(summary.to_dict()), f"{output} is finished")
    if strict and summary.failed:
        raise SystemExit(1)
