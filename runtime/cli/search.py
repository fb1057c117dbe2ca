"""`facemill search`: find the photos most similar to a query."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from .. import defaults
from ..index.kinds import KINDS
from ..text import printable
from . import options
from .answers import print_answer, print_end
from .chosen import AttributeOptions, attribute_options
from .common import handle_errors, setup_logging


@click.command(name="search")
@options.file_argument
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@options.count_option("-k", defaults.K, "Maximum number of hits per query.")
@click.option("--threshold", type=float, callback=options.cosine, help="Minimum score of a hit, -1 to 1.")
@click.option("--exclude-self", is_flag=True, help="Leave out the QUERY's own file if FILE holds it.")
@click.option("--group-by", type=click.Choice(["folder"]), help="Show the best hit of each folder; -k counts folders.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per query.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per hit, after a header.")
@attribute_options
@options.csv_safe_option
@options.page_option
@options.file_engine_option
@options.device_option("Device that compares the rows: the CPU, the first GPU or GPU number N; auto: the quicker one.")
@click.option(
    "--index",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *KINDS]),
    help="flat is exact. auto is flat within --latency, else the smallest index that finds 99 % of the hits.",
)
@options.latency_option
@options.force_option("Replace an existing page.")
@options.exclusive("--json", "--csv")
@handle_errors
def main(file: Path, queries: tuple[str, ...], chosen: AttributeOptions, page: Path | None, **given: Any) -> None:
    """Find the photos in FILE whose faces are most like those of each QUERY.

    QUERY is a photo, a folder (all photos below it, sorted) or @list.txt (one path per line). Answers are printed as
    they come, in the order of the queries. FILE is an embedding file of `facemill process`.

    The score is the cosine of two embeddings. The search is exact, unless that takes longer than --latency: then an
    approximate index is made beside FILE and measured, and the answer says which share of the true hits it finds. Each
    hit names its face: face_index (0 is the main face of the photo) and box (left, top, right, bottom in pixels). If a
    QUERY shows several faces, one is taken: the largest, or the main one of a file with --faces all. If FILE carries a
    calibration (facemill evaluate --calibrate FILE), each score comes with the false hits to expect at that score or
    above.

    \b
    Examples:
      facemill search people.h5 somebody.jpg
      facemill search people.h5 somebody.jpg --html answer.html
      facemill search people.h5 queries/ -k 50 --device gpu --csv
      facemill search people.h5 photos/ --exclude-self --group-by folder --age 18-
      facemill search nation.h5 somebody.jpg -k 50 --index ivf

    Exit codes: 0 all queries answered, 1 failure (or a query that could not be read), 2 usage.
    """
    setup_logging()
    from ..pages.page import check_page_path
    from ..pages.search_page import PageAnswers, write_page
    from ..search.hits import FindOptions
    from ..search.search import Search
    from ..sources.queries import expand_queries

    if page is not None:
        check_page_path(page, force=given["force"], inputs=[file, *(query.removeprefix("@") for query in queries)])
    photos = expand_queries(queries)
    find = FindOptions(given["k"], given["threshold"], given["exclude_self"], given["group_by"] is not None)
    form = "json" if given["as_json"] else "csv" if given["as_csv"] else "table"
    failed: Counter[str] = Counter()
    opening = {name: given[name] for name in ("index", "device", "engine", "latency_ms")}
    with Search(file, **opening, **chosen.values()) as search:
        page_answers = PageAnswers(len(photos), find.k)
        for number, answer in enumerate(search.stream(photos, find)):
            if number == 0 and answer.facts.warning:
                click.echo(f"WARNING: {answer.facts.warning}", err=True)
            print_answer(answer, form, first=number == 0, csv_safe=given["csv_safe"])
            if answer.error:
                click.echo(f"error: {printable(answer.query)}: {printable(answer.error)}", err=True)
                failed[answer.error.partition(":")[0]] += 1
            page_answers.add(answer)
        print_end(answer.facts, form)
        if page is not None:
            write_page(page, search.file, page_answers, force=given["force"])
    if len(photos) > 1 and failed:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(failed.items()))
        click.echo(f"error: {failed.total():,} of {len(photos):,} queries have no answer ({reasons})", err=True)
    if failed:
        raise SystemExit(1)
