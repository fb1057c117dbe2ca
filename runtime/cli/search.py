"""`facemill search`: who is this?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..index.kinds import KINDS
from ..text import printable
from . import options
from .answers import print_answers, print_end
from .common import handle_errors, setup_logging
from .engines import given_engine

if TYPE_CHECKING:
    from ..search.search import Answers


@click.command(name="search")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Hits for each query at most.")
@click.option("--threshold", type=float, callback=options.cosine, help="Leave out hits with a lower score (-1 to 1).")
@click.option("--exclude-self", is_flag=True, help="Leave out the QUERY's own file where it is in FILE.")
@click.option(
    "--group-by", type=click.Choice(["folder"]), help="One hit a folder: its best photograph. -k counts folders."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each query.")
@click.option("--csv", "as_csv", is_flag=True, help="One line of CSV for each hit, with a header.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write a page with the photographs.")
@click.option("--engine", type=click.Path(path_type=Path), help="An engine file, if the one that FILE names is gone.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|gpu|N",
    callback=options.device,
    help="Where the rows are searched: on the CPU, the first GPU, or GPU number N; auto: where it is done sooner.",
)
@click.option(
    "--index",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *KINDS]),
    help="flat is exact; auto takes it while it keeps to --latency, else the smallest that finds 99 % of its hits.",
)
@click.option(
    "--latency",
    default=100.0,
    show_default=True,
    metavar="MS",
    type=click.FloatRange(min=0, min_open=True),
    help="What --index auto wants of one query, in milliseconds.",
)
@click.option("--force", is_flag=True, help="Replace an existing page.")
@handle_errors
def main(
    file: Path,
    queries: tuple[str, ...],
    k: int,
    threshold: float | None,
    exclude_self: bool,
    group_by: str | None,
    as_json: bool,
    as_csv: bool,
    page: Path | None,
    engine: Path | None,
    device: str,
    index: str,
    latency: float,
    force: bool,
) -> None:
    """Find the photographs in FILE whose faces are most like those of each QUERY photograph.

    QUERY is a photograph, a folder (all photographs below it, sorted) or @list.txt (one path a line). Answers are
    printed as they come, in the order of the queries.

    FILE is an embedding file of `facemill process`. The index beside it (FILE.faiss) is made when needed; the score
    is the exact cosine of two embeddings. The search is exact, on a GPU too, which pays for many queries at once: the
    rows must be uploaded first. Where exact search takes longer than --latency, an approximate index (FILE.faiss-ivf)
    is made and measured, and the answer says which share of the true hits it finds (recall).

    Where faces were looked for, each hit names its face: face_index (0 is the one that the photograph is of) and box
    (left, top, right, bottom in pixels of the original photograph). Of a QUERY with several faces the main one is
    taken: large, and near the middle.

    Where FILE carries a calibration (facemill evaluate --calibrate FILE), each score comes with the false hits that
    somebody who is not in FILE must expect at that score or above.

    \b
    Examples:
      facemill search people.h5 somebody.jpg
      facemill search people.h5 a.jpg b.jpg -k 3 --threshold 0.4 --json
      facemill search people.h5 somebody.jpg --html answer.html
      facemill search people.h5 queries/ -k 50 --device gpu --csv
      facemill search people.h5 photos/ --exclude-self --group-by folder -k 5
      facemill search nation.h5 somebody.jpg -k 50 --index ivf

    Exit codes: 0 all queries answered, 1 failure (or a query that could not be read), 2 usage.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    setup_logging()
    from ..pages.page import check_page_path
    from ..pages.search_page import PageAnswers, write_page
    from ..search.hits import Wanted
    from ..search.search import Search
    from ..sources.queries import expand_queries
    from ..storage.diskfile import readable_as
    from ..storage.file import EmbeddingFile

    if page is not None:
        check_page_path(page, force=force)
    asked = expand_queries(queries)
    wanted = Wanted(k, threshold, exclude_self, by_folder=group_by is not None)
    form = "json" if as_json else "csv" if as_csv else "table"
    failed: Counter[str] = Counter()
    with (
        EmbeddingFile(file) as gallery,
        readable_as(file),
        Search(
            gallery,
            wanted,
            queries=len(asked),
            engine=given_engine(engine),
            device=device,
            index=index,
            latency_ms=latency,
        ) as opened,
    ):
        shown = PageAnswers(len(asked), wanted.k)
        for number, found in enumerate(opened.batches(asked)):
            if number == 0 and found.warning:
                click.echo(f"WARNING: {found.warning}", err=True)
            print_answers(found, form, first=number == 0)
            failed.update(_tell_failed(found))
            shown.add(found)
        print_end(found, form)
        if page is not None:
            write_page(page, gallery, shown, force=force)
    if len(asked) > 1 and failed:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(failed.items()))
        click.echo(f"error: {failed.total():,} of {len(asked):,} queries have no answer ({reasons})", err=True)
    if failed:
        raise SystemExit(1)


def _tell_failed(found: Answers) -> list[str]:
    """Name the queries that have no answer on stderr; returns what became of each."""
    failed = [answer for answer in found.answers if answer.error]
    for answer in failed:
        click.echo(f"error: {printable(answer.query)}: {printable(answer.error)}", err=True)
    return [answer.error.partition(":")[0] for answer in failed]
