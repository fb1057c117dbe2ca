"""`facemill pairs`: who is enrolled twice?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from . import options
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..pairs.pairs import PairResult
    from ..pairs.table import PairTable


def _expected(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"{value} is not a number above 0", ctx, param)
    return value


@click.command(name="pairs")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The pairs, best first: a name that ends in .csv or .parquet.",
)
@click.option("--threshold", type=float, callback=options.cosine, help="The lowest score of a pair (-1 to 1).")
@click.option(
    "--expected-false",
    type=float,
    metavar="N",
    callback=_expected,
    help="Take the lowest threshold at which at most N pairs of two people are expected in all of FILE. [default: 1]",
)
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write a page for a reviewer: yes or no.")
@click.option(
    "--page-pairs", default=500, show_default=True, type=click.IntRange(min=1), help="Pairs on the page at most."
)
@options.budget_option
@click.option(
    "--most",
    default=10_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Stop if there are more pairs: the threshold is too low.",
)
@options.compare_device_option
@click.option(
    "--force", is_flag=True, help="Replace existing output, and drop an unfinished search of another question."
)
@handle_errors
def main(
    file: Path,
    output: Path,
    threshold: float | None,
    expected_false: float | None,
    page: Path | None,
    page_pairs: int,
    budget: float | None,
    most: int,
    device: str,
    force: bool,
) -> None:
    """Find all pairs of photographs in FILE whose faces are so alike that they may be one person.

    Every row is compared with every other, exactly. The threshold is given, or follows from how many false pairs may be
    expected among all, where FILE carries a calibration (facemill evaluate --calibrate FILE). Pairs of two faces in one
    photograph are left out.

    What is found is kept beside FILE (FILE.pairs.parts) until the output is written: after Ctrl-C or a crash the same
    command goes on from there, and gives the same output. The page keeps a reviewer's answers, and saves them as CSV.

    \b
    Examples:
      facemill pairs people.h5 --threshold 0.5 -o pairs.csv
      facemill pairs people.h5 --expected-false 10 -o pairs.parquet --html review.html
      facemill pairs people.h5 -o pairs.csv --budget 2h

    Exit codes: 0 done, 1 failure, 2 usage.
    """
    if threshold is not None and expected_false is not None:
        raise click.UsageError("--threshold and --expected-false exclude each other")
    setup_logging()
    from ..interrupt import SignalControl
    from ..pages.page import check_page_path
    from ..pages.pairs_page import review_page, write_review
    from ..pairs.checkpoint import Checkpoint
    from ..pairs.pairs import PairQuery, find_pairs
    from ..pairs.table import PairTable, check_table_path, write_table
    from ..pairs.threshold import choose_threshold
    from ..progress import LiveLine
    from ..search.model_label import made_by, warning_of
    from ..storage.calibration import find_calibration
    from ..storage.diskfile import readable_as
    from ..storage.file import EmbeddingFile

    check_table_path(output, force=force)
    if page is not None:
        check_page_path(page, force=force)
    with EmbeddingFile(file) as gallery, readable_as(file):
        calibration = find_calibration(gallery)
        lowest = choose_threshold(gallery, calibration, threshold, expected_false)
        wanted = PairQuery(lowest, most=most, budget_s=budget, device=device)
        with Checkpoint(file) as parts:
            with SignalControl() as control:
                pairs = find_pairs(gallery, parts, wanted, force=force, listener=LiveLine(), control=control)
            table = PairTable(gallery, pairs.pairs, calibration)
            # What takes time comes first: stopped between the two files, the command would find the first one there.
            text = "" if page is None else review_page(gallery, table, pairs.method(), lowest, page_pairs)
            write_table(output, gallery, table)
            if page is not None:
                write_review(page, gallery, text)
            parts.remove()
        model, warning = made_by(gallery), warning_of(gallery)
    if warning:
        click.echo(f"WARNING: {warning}", err=True)
    click.echo("\n".join(map(printable, (*_summary(output, page, pairs, table, lowest), f"model: {model}"))))


def _summary(output: Path, page: Path | None, pairs: PairResult, table: PairTable, threshold: float) -> list[str]:
    expected = table.expected(threshold)
    rate = pairs.compared / max(pairs.elapsed_s, 1e-9)
    left_out = f" ({pairs.same_photograph:,} more are of one photograph, and left out)" if pairs.same_photograph else ""
    lines = [
        f"{output}: {len(pairs.pairs):,} pairs at {threshold:.6g} or above{left_out}",
        f"search: {pairs.method()}",
        f"time: {pairs.elapsed_s:,.1f} s, {pairs.compared:,} comparisons, {rate / 1e6:,.1f} million a second",
    ]
    if expected is not None:
        lines.append(f"expected false pairs at the threshold: {expected}")
    if page is not None:
        lines.append(f"page: {page}")
    return lines
