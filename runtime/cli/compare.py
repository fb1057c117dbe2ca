"""`facemill compare`: say whether two photos show the same person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from . import groups, options
from .common import handle_errors, setup_logging
from .reports import comparison_lines

if TYPE_CHECKING:
    pass


@click.command(name="compare")
@click.argument("photos", nargs=2, metavar="A B")
@click.option("--file", type=options.PATH, help="Embed as the rows of this file were, and use its calibration.")
@groups.engine_options
@groups.detector_options
@click.option("--threshold", type=float, callback=options.cosine, help="Score from which A and B match, -1 to 1.")
@options.json_option
@options.page_option
@options.force_option("Replace an existing page.")
@options.excludes("--file", "--model", "--backend", *groups.DETECTOR_OPTIONS, why="photos become what FILE's rows are")
@handle_errors
def main(
    photos: tuple[str, str],
    file: Path | None,
    engine: groups.EngineOptions,
    detection: groups.DetectorOptions,
    threshold: float | None,
    as_json: bool,
    page: Path | None,
    force: bool,
) -> None:
    """Say whether photos A and B show the same person: score, threshold, verdict and false match rate.

    The score is the cosine of two embeddings. They are made as the rows of an embedding file were (--file), or by a
    model, by default that of `facemill process`. If a photo shows several faces, the main one is taken: large, and near
    the middle.

    The threshold is that of --threshold; else, if the file carries a calibration, the lowest that 0.1 % of the pairs of
    two people reach; else the one that the model file states. Without a threshold there is no verdict.

    \b
    Examples:
      facemill compare passport.jpg gate.jpg
      facemill compare a.jpg b.jpg --file people.h5 --json
      facemill compare a.jpg b.jpg --model sface --threshold 0.4 --html pair.html

    Exit codes: 0 compared, whatever the verdict; 1 failure (or no face in a photo), 2 usage.
    """
    setup_logging()
    from ..api.photos import FaceEmbedder
    from ..pages.compare_page import write_comparison
    from ..pages.page import check_page_path

    if page is not None:
        check_page_path(page, force=force)
    with FaceEmbedder(file=file, **engine.values(), **detection.values()) as embedder:
        comparison = embedder.compare(*photos, threshold=threshold)
    if comparison.warning:
        click.echo(f"WARNING: {comparison.warning}", err=True)
    if as_json:
        click.echo(json.dumps(comparison.to_dict()))
    elif comparison.score is not None:
        click.echo("\n".join(comparison_lines(comparison)))
    failed = [photo for photo in comparison.photographs if photo.error]
    for photo in failed:
        click.echo(f"error: {printable(photo.photo)}: {printable(photo.error)}", err=True)
    if failed:
        raise SystemExit(1)
    if page is not None:
        write_comparison(page, comparison, embedder.limits, file, force=force)
