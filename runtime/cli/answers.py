"""The answers of a search as text: a table for a person, JSON lines and CSV for programs."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..text import printable

if TYPE_CHECKING:
    from ..records import Box, FacePlace, SearchHit
    from ..search.search import Answers

FORMS = ("table", "json", "csv")


def print_answers(found: Answers, form: str, *, first: bool) -> None:
    """One batch of answers to stdout.

    Args:
        found: the batch.
        form: one of FORMS.
        first: of all batches: CSV begins with a header.
    """
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if first:
            writer.writerow(_csv_header(found))
        writer.writerows(_csv(found))
        for answer in found.answers:  # for which CSV has no place
            for words in filter(None, (answer.choice, _cut(found, answer.cut))):
                click.echo(f"{printable(answer.query)}: {words}", err=True)
    else:
        for line in _json(found) if form == "json" else _table(found):
            click.echo(line)
    sys.stdout.flush()


def print_end(found: Answers, form: str) -> None:
    """What is said once, after the last batch: of a table, and of CSV what it has no place for."""
    if form == "csv" and found.index.measured is not None:
        click.echo(f"index: {found.index}", err=True)
    if form != "table":
        return
    click.echo(f"model: {printable(found.made_by())}")
    click.echo(f"index: {found.index}")
    if found.calibration is not None:
        click.echo(printable(found.calibration.explain()))


def _json(found: Answers) -> Iterator[str]:
    """ASCII only: whatever a name holds, a line stays a line."""
    for answer in found.answers:
        line: dict[str, Any] = {"query": utf8(answer.query)}
        if answer.error:
            line["error"] = utf8(answer.error)
        line |= {"model": found.model, "model_sha256": found.model_sha256}
        if answer.faces is not None:
            line |= {"faces": answer.faces, **face_json(answer.face)}
        line["search_ms"] = round(found.query_ms, 3)
        line["index"] = found.index.as_dict()
        line["hits"] = [
            {
                "rank": hit.rank,
                "score": round(hit.score, 6),
                "row": hit.row,
                "path": hit.path,
                **face_json(hit.face),
                **_chance(found, hit),
                **_folder(hit),
            }
            for hit in answer.hits
        ]
        if answer.cut:
            line["cut"] = True
        if found.warning:
            line["warning"] = found.warning
        yield json.dumps(line)


def face_json(face: FacePlace | None) -> dict[str, Any]:
    """What JSON says of a face; nothing where none is known."""
    return {} if face is None else {"face_index": face.index, "box": [round(edge, 1) for edge in face.box]}


def _chance(found: Answers, hit: SearchHit) -> dict[str, object]:
    """What JSON and CSV say of false hits at a score; nothing where the file carries no calibration."""
    expected = found.expected(hit.score)
    if expected is None:
        return {}
    return {"expected_false_hits": float(f"{expected.hits:.6g}"), "at_most": expected.at_most}


def _folder(hit: SearchHit) -> dict[str, object]:
    """What JSON and CSV say of the folder that a hit stands for; nothing where hits are photographs."""
    return {} if hit.folder is None else {"folder": hit.folder, "photographs": hit.photographs}


def _cut(found: Answers, cut: bool) -> str:
    """That hits are missing, in words; empty where none is."""
    what = "folders" if found.by_folder else "photographs"
    return f"there may be more {what}: only the best rows were looked at" if cut else ""


def _csv_header(found: Answers) -> tuple[str, ...]:
    faces = ("face_index", "left", "top", "right", "bottom") if found.has_faces else ()
    chances = () if found.calibration is None else ("expected_false_hits", "at_most")
    folders = ("folder", "photographs") if found.by_folder else ()
    return "query", "rank", "score", "row", "path", "search_ms", *faces, *chances, *folders


def _csv(found: Answers) -> Iterator[tuple[object, ...]]:
    for answer in found.answers:
        for hit in answer.hits:
            chance = [str(value).lower() for value in _chance(found, hit).values()]  # true, as JSON writes it
            face = () if hit.face is None else (hit.face.index, *(f"{edge:.1f}" for edge in hit.face.box))
            folder = () if hit.folder is None else (utf8(hit.folder), hit.photographs)
            names = utf8(answer.query), hit.rank, f"{hit.score:.6f}", hit.row, utf8(hit.path)
            yield *names, f"{found.query_ms:.3f}", *face, *chance, *folder


def utf8(name: str) -> str:
    """A name that stdout and every reader of JSON take, whatever bytes it holds: as the file names it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _table(found: Answers) -> Iterator[str]:
    for answer in found.answers:
        if answer.error:
            continue
        yield f"{printable(answer.query)}  ({found.query_ms:.1f} ms in {found.rows:,} embeddings)"
        if answer.choice:
            yield f"  {answer.choice}"
        if answer.cut:
            yield f"  {_cut(found, answer.cut)}"
        if not answer.hits:
            yield "  no hit"
            continue
        chance = "" if found.calibration is None else "expected  "
        face = f"face_index  {'box':<19}  " if found.has_faces else ""
        folder = "photographs  " if found.by_folder else ""
        yield f"  {'rank':>4}  {'score':>7}  {chance}{face}{folder}path"
        for hit in answer.hits:
            chance = "" if found.calibration is None else f"{found.expected(hit.score)!s:>8}  "
            face = "" if hit.face is None else f"{hit.face.index:>10}  {short_box(hit.face.box):<19}  "
            folder = "" if hit.folder is None else f"{hit.photographs:>11}  "
            yield f"  {hit.rank:>4}  {hit.score:>7.4f}  {chance}{face}{folder}{printable(hit.path)}"


def short_box(box: Box) -> str:
    """In whole pixels, which is all that finding the face in the photograph takes."""
    return ",".join(f"{round(edge, 0) + 0.0:.0f}" for edge in box)  # adding 0 makes 0 of -0
