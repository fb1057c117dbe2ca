"""Print the answers of a search: a table for people, JSON lines and CSV for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..csvtable import CsvTable
from ..text import printable, utf8
from .tables import align

if TYPE_CHECKING:
    from ..records import Box
    from ..search.answers import Answer, Hit, SearchFacts

_EDGES = ("left", "top", "right", "bottom")


def print_answer(answer: Answer, form: str, *, first: bool, csv_safe: bool = False) -> None:
    """Print an answer to stdout.

    Args:
        answer: the answer to one query.
        form: "table", "json" or "csv".
        first: whether it is the first answer: CSV begins with a header.
        csv_safe: write no text into CSV that a spreadsheet takes for a formula.
    """
    if form == "json":
        click.echo(json.dumps(answer.to_dict()))  # ASCII only, so no name can break a line
    elif form == "table":
        for line in _table(answer):
            click.echo(line)
    else:
        columns = _csv_columns(answer.facts)
        table = CsvTable(sys.stdout, safe=csv_safe, clean=printable if sys.stdout.isatty() else None)
        if first:
            table.row(columns)
        table.rows(map(_csv_row(answer, hit).get, columns) for hit in answer.hits)
        sys.stdout.flush()
        for note in answer.notes:  # CSV has no column for them
            click.echo(f"{printable(answer.query)}: {note}", err=True)


def print_end(facts: SearchFacts, form: str) -> None:
    """Print the model and the index once, after the last answer, if the form does not include them."""
    if form == "csv" and facts.index.measured is not None:
        click.echo(f"index: {facts.index}", err=True)
    if form == "table":
        click.echo(f"model: {printable(facts.model_label)}")
        click.echo(f"index: {facts.index}")
        if facts.calibration is not None:
            click.echo(printable(facts.calibration.explain()))


def _table(answer: Answer) -> Iterator[str]:
    if answer.error:
        return
    facts = answer.facts
    among = f": {facts.chosen}" if facts.chosen else ""
    yield f"{printable(answer.query)}  ({answer.search_ms:.1f} ms in {facts.rows:,} embeddings{among})"
    yield from (f"  {note}" for note in answer.notes)
    if not answer.hits:
        yield "  no hit"
        return
    columns = _columns(facts)
    rows = [list(columns), *([cell(hit) for cell in columns.values()] for hit in answer.hits)]
    yield from align(rows, right=[i for i, name in enumerate(columns) if name not in ("box", "path")])


def _columns(facts: SearchFacts) -> dict[str, Callable[[Hit], str]]:
    """The columns of the table, each with a function that makes the text of a hit."""
    columns: dict[str, Callable[[Hit], str]] = {
        "rank": lambda hit: str(hit.rank),
        "score": lambda hit: f"{hit.score:.4f}",
    }
    if facts.calibration is not None:
        columns["expected"] = lambda hit: str(hit.expected)
    if facts.has_faces:
        columns["face_index"] = lambda hit: str(hit.face.index) if hit.face else ""
        if facts.has_pages:
            columns["page"] = lambda hit: str(hit.face.page) if hit.face else ""
        columns["box"] = lambda hit: short_box(hit.face.box) if hit.face else ""
    if facts.by_folder:
        columns["photographs"] = lambda hit: str(hit.photographs)
    return {**columns, "path": lambda hit: printable(hit.path)}


def short_box(box: Box) -> str:
    """A box in whole pixels: enough to find the face in the photo."""
    return ",".join(f"{round(edge, 0) + 0.0:.0f}" for edge in box)  # adding 0 makes 0 of -0


def _csv_columns(facts: SearchFacts) -> list[str]:
    faces = ["face_index", *(["page"] if facts.has_pages else []), *_EDGES] if facts.has_faces else []
    chances = [] if facts.calibration is None else ["expected_false_hits", "at_most"]
    folders = ["folder", "photographs"] if facts.by_folder else []
    return ["query", "rank", "score", "row", "path", "search_ms", *faces, *chances, *folders]


def _csv_row(answer: Answer, hit: Hit) -> dict[str, Any]:
    row = hit.to_dict() | {"query": utf8(answer.query), "score": f"{hit.score:.6f}", "path": utf8(hit.path)}
    row["search_ms"] = f"{answer.search_ms:.3f}"
    if hit.face is not None:
        row |= zip(_EDGES, (f"{edge:.1f}" for edge in row.pop("box")), strict=True)
    if hit.expected is not None:
        row["at_most"] = str(row["at_most"]).lower()  # true, as JSON writes it
    if hit.folder is not None:
        row["folder"] = utf8(hit.folder)
    return row
