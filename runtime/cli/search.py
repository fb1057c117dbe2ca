"""`facemill search`: who is this?"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..pipeline.query import Answers
    from ..records import Box, FacePlace, SearchHit


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number from -1 to 1", ctx, param)
    return value


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in ("auto", "cpu", "gpu") and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is none of auto, cpu, gpu and the number of a GPU", ctx, param)
    return value


@click.command(name="search")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Hits for each query at most.")
@click.option("--threshold", type=float, callback=_finite, help="Leave out hits with a lower score (-1 to 1).")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each query.")
@click.option("--csv", "as_csv", is_flag=True, help="One line of CSV for each hit, with a header.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write a page with the photographs.")
@click.option("--engine", type=click.Path(path_type=Path), help="An engine file, if the one that FILE names is gone.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|gpu|N",
    callback=_device,
    help="Where the rows are searched: on the CPU, the first GPU, or GPU number N; auto: where it is done sooner.",
)
@click.option(
    "--index",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "flat", "sq8", "ivf", "hnsw"]),
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
      facemill search people.h5 queries/*.jpg -k 50 --device gpu --csv
      facemill search nation.h5 somebody.jpg -k 50 --index ivf

    Exit codes: 0 all queries answered, 1 failure (or a query that could not be read), 2 usage.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    setup_logging()
    from ..index.gallery import Gallery
    from ..pipeline.page import check_page_path, write_page
    from ..pipeline.query import search

    if page is not None:
        check_page_path(page, force=force)
    with Gallery(file) as gallery:
        found = search(
            gallery, queries, k=k, threshold=threshold, engine=engine, device=device, index=index, latency_ms=latency
        )
        if page is not None:
            write_page(page, gallery, found, force=force)
    if found.warning:
        click.echo(f"WARNING: {found.warning}", err=True)
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(_csv(found))
    else:
        for line in _json(found) if as_json else _table(found):
            click.echo(line)
    if as_csv:  # which has no place for it
        if found.index.measured is not None:
            click.echo(f"index: {found.index}", err=True)
        for answer in found.answers:
            if answer.choice:
                click.echo(f"{printable(answer.query)}: {answer.choice}", err=True)
    failed = [answer for answer in found.answers if answer.error]
    for answer in failed:
        click.echo(f"error: {printable(answer.query)}: {printable(answer.error)}", err=True)
    if failed:
        raise SystemExit(1)


def _json(found: Answers) -> Iterator[str]:
    """ASCII only: whatever a name holds, a line stays a line."""
    for answer in found.answers:
        line: dict[str, Any] = {"query": answer.query}
        if answer.error:
            line["error"] = answer.error
        line |= {"model": found.model, "model_sha256": found.model_sha256}
        if answer.faces is not None:
            line |= {"faces": answer.faces, **_face(answer.face)}
        line["search_ms"] = round(found.query_ms, 3)
        line["index"] = found.index.as_dict()
        line["hits"] = [
            {
                "rank": hit.rank,
                "score": round(hit.score, 6),
                "row": hit.row,
                "path": hit.path,
                **_face(hit.face),
                **_chance(found, hit),
            }
            for hit in answer.hits
        ]
        if found.warning:
            line["warning"] = found.warning
        yield json.dumps(line)


def _face(face: FacePlace | None) -> dict[str, Any]:
    """What JSON says of a face; nothing where none is known."""
    return {} if face is None else {"face_index": face.index, "box": [round(edge, 1) for edge in face.box]}


def _chance(found: Answers, hit: SearchHit) -> dict[str, object]:
    """What JSON and CSV say of false hits at a score; nothing where the file carries no calibration."""
    expected = found.expected(hit.score)
    if expected is None:
        return {}
    return {"expected_false_hits": float(f"{expected.hits:.6g}"), "at_most": expected.at_most}


def _csv(found: Answers) -> Iterator[tuple[object, ...]]:
    faces = ("face_index", "left", "top", "right", "bottom") if found.has_faces else ()
    chances = () if found.calibration is None else ("expected_false_hits", "at_most")
    yield "query", "rank", "score", "row", "path", "search_ms", *faces, *chances
    for answer in found.answers:
        for hit in answer.hits:
            names = (os.fsencode(name).decode("utf-8", "backslashreplace") for name in (answer.query, hit.path))
            query, path = names
            chance = [str(value).lower() for value in _chance(found, hit).values()]  # true, as JSON writes it
            face = () if hit.face is None else (hit.face.index, *(f"{edge:.1f}" for edge in hit.face.box))
            yield query, hit.rank, f"{hit.score:.6f}", hit.row, path, f"{found.query_ms:.3f}", *face, *chance


def _table(found: Answers) -> Iterator[str]:
    for answer in found.answers:
        if answer.error:
            continue
        yield f"{printable(answer.query)}  ({found.query_ms:.1f} ms in {found.rows:,} embeddings)"
        if answer.choice:
            yield f"  {answer.choice}"
        if not answer.hits:
            yield "  no hit"
            continue
        chance = "" if found.calibration is None else "expected  "
        face = f"face_index  {'box':<19}  " if found.has_faces else ""
        yield f"  {'rank':>4}  {'score':>7}  {chance}{face}path"
        for hit in answer.hits:
            chance = "" if found.calibration is None else f"{found.expected(hit.score)!s:>8}  "
            face = "" if hit.face is None else f"{hit.face.index:>10}  {_short(hit.face.box):<19}  "
            yield f"  {hit.rank:>4}  {hit.score:>7.4f}  {chance}{face}{printable(hit.path)}"
    yield f"model: {printable(found.made_by())}"
    yield f"index: {found.index}"
    if found.calibration is not None:
        yield printable(found.calibration.explain())


def _short(box: Box) -> str:
    """In whole pixels, which is all that finding the face in the photograph takes."""
    return ",".join(f"{round(edge, 0) + 0.0:.0f}" for edge in box)  # adding 0 makes 0 of -0
