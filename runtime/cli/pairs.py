"""`facemill pairs`: find photos that may show the same person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import defaults
from ..text import printable
from . import groups, options
from .common import handle_errors, print_summary, setup_logging, terminal

if TYPE_CHECKING:
    from ..api.pairs import PairReport


@click.command(name="pairs")
@options.file_argument
@click.option("-o", "--output", required=True, type=options.PATH, help="File for the pairs: a .csv or .parquet name.")
@click.option("--threshold", type=float, callback=options.cosine, help="Minimum score of a pair, -1 to 1.")
@click.option(
    "--expected-false",
    type=float,
    metavar="N",
    callback=options.above_zero,
    help="Take the lowest threshold at which at most N pairs of two people are expected in FILE.  [default: 1]",
)
@click.option("--html", "page", type=options.PATH, help="Also write an HTML page on which a reviewer decides.")
@options.csv_safe_option
@click.option("--review", is_flag=True, help="Obey FILE.review: leave out pairs decided to be different people.")
@click.option("--undecided", is_flag=True, help="Also leave out pairs decided to be the same person.")
@options.count_option("--page-pairs", defaults.PAGE_PAIRS, "Maximum number of pairs on the page.")
@options.count_option("--max-pairs", defaults.MAX_PAIRS, "Stop if there are more pairs: the threshold is too low.")
@groups.all_pairs_options
@options.exclusive("--threshold", "--expected-false")
@handle_errors
def main(
    file: Path,
    output: Path,
    threshold: float | None,
    expected_false: float | None,
    page: Path | None,
    page_pairs: int,
    csv_safe: bool,
    review: bool,
    undecided: bool,
    max_pairs: int,
    search: groups.AllPairsOptions,
) -> None:
    """Find all pairs of photos in FILE that may show the same person.

    Every row is compared with every other, exactly. The threshold is given, or follows from the number of false pairs
    to expect, if FILE carries a calibration (facemill evaluate --calibrate FILE). Pairs of two faces in one photo are
    left out.

    The pairs so far are kept beside FILE (FILE.pairs.parts) until the output is written: after Ctrl-C or a crash the
    same command resumes, and gives the same output. The page keeps a reviewer's answers and saves them as CSV. --review
    obeys what people decided in facemill serve or by facemill.Review, and states it in the column `decision`.

    \b
    Examples:
      facemill pairs people.h5 --threshold 0.5 -o pairs.csv
      facemill pairs people.h5 --expected-false 10 -o pairs.parquet --html review.html
      facemill pairs people.h5 -o pairs.csv --budget 2h
      facemill pairs people.h5 -o left.csv --undecided

    Exit codes: 0 done, 1 failure, 2 usage.
    """
    setup_logging()
    from ..api.pairs import find_pairs

    with terminal() as job:
        report = find_pairs(
            file, threshold=threshold, expected_false=expected_false, output=output, page=page, page_pairs=page_pairs,
            csv_safe=csv_safe, review=review, undecided=undecided, max_pairs=max_pairs, **job, **search.values(),
        )  # fmt: skip
    if report.warning:
        click.echo(f"WARNING: {report.warning}", err=True)
    summary = "\n".join(map(printable, _summary(report, output, page)))
    print_summary(summary, f"{output} is written" if page is None else f"{output} and {page} are written")


def _summary(report: PairReport, output: Path, page: Path | None) -> Iterator[str]:
    one_photo = report.same_photograph
    left_out = f" ({one_photo:,} more are of one photo, and left out)" if one_photo else ""
    yield f"{output}: {len(report):,} pairs at {report.threshold:.6g} or above{left_out}"
    if report.left_out is not None:
        yield f"review: {report.left_out:,} decided pairs left out"
    yield f"search: {report.method}"
    rate = report.compared / max(report.elapsed_s, 1e-9)
    yield f"time: {report.elapsed_s:,.1f} s, {report.compared:,} comparisons, {rate / 1e6:,.1f} million a second"
    if report.expected_false is not None:
        yield f"expected false pairs at the threshold: {report.expected_false}"
    if page is not None:
        yield f"page: {page}"
    yield f"model: {report.model}"
