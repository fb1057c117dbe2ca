"""The answers of a search as one HTML page, without a script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..pipeline.contract import limits_of
from ..search.search import Answer, Answers
from ..storage.file import EmbeddingFile
from .page import check_page_path, count, render, save_page
from .thumbnails import Thumbnails

_QUERIES, _PICTURES = 200, 5000  # of a page at most: it is one file of some ten megabytes
_CONTENTS_FROM, _OPEN_TO = 4, 30  # queries: fewer need no contents, more would fill the screen with them


class PageAnswers:
    """The first answers of a search, as many as a page shows.

    Attributes:
        asked: queries in all.
        found: the answers kept, as one batch; None before the first.
    """

    def __init__(self, asked: int, k: int) -> None:
        """Keep none yet.

        Args:
            asked: queries in all.
            k: hits of each at most.
        """
        self.asked = asked
        self.found: Answers | None = None
        self._room = min(_QUERIES, max(1, _PICTURES // (1 + k)))

    def add(self, found: Answers) -> None:
        """The next batch."""
        before = self.found
        answers = found.answers[: self._room]
        self._room -= len(answers)
        if before is None:
            self.found = replace(found, answers=answers)
        else:
            answers, search_ms = before.answers + answers, before.search_ms + found.search_ms
            self.found = replace(before, answers=answers, search_ms=search_ms)


def write_page(path: Path, gallery: EmbeddingFile, shown: PageAnswers, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        gallery: the file that was searched.
        shown: answers, one batch at least.
        force: replace an existing file.
    Raises:
        ConfigError: `path` is no place for a page.
        OutputExistsError: the page exists, and `force` is not given.
        StorageError: the page cannot be written; an existing file stays.
    """
    check_page_path(path, force=force)
    assert shown.found is not None
    save_page(path, _page(gallery, shown.found, shown.asked), gallery.path)


def _page(gallery: EmbeddingFile, found: Answers, asked: int) -> str:
    pictures = Thumbnails(limits_of(gallery.contract))
    return render(
        "search",
        styles=["search"],
        title=f"Search in {gallery.path.name}",
        warning=found.warning,
        summary=[
            count(asked, "query", "queries"),
            f"{found.rows:,} embeddings",
            f"model {found.made_by()}",
            f"search {found.search_ms:,.1f} ms",
            f"index {found.index}",
        ],
        explanation="" if found.calibration is None else found.calibration.explain(),
        asked=asked,
        contents=len(found.answers) >= _CONTENTS_FROM,
        open=len(found.answers) <= _OPEN_TO,
        sections=[_section(gallery, found, answer, pictures) for answer in found.answers],
    )


def _section(gallery: EmbeddingFile, found: Answers, answer: Answer, pictures: Thumbnails) -> dict[str, Any]:
    """A query and its hits, for the template."""
    cut = ["there may be more: only the best rows were looked at"] if answer.cut else []
    return {
        "query": answer.query,
        "picture": pictures.of(os.fsencode(answer.query), answer.face),
        "best": answer.error.partition(":")[0] or (f"{answer.hits[0].score:.4f}" if answer.hits else "no hit"),
        "error": answer.error,
        "count": count(len(answer.hits), *(("folder", "folders") if found.by_folder else ("hit", "hits"))),
        "notes": [*filter(None, [answer.choice]), *cut],
        "hits": list(_hits(gallery, found, answer, pictures)),
    }


def _hits(gallery: EmbeddingFile, found: Answers, answer: Answer, pictures: Thumbnails) -> Iterator[dict[str, Any]]:
    for hit in answer.hits:
        facts = []
        if (expected := found.expected(hit.score)) is not None:
            facts.append(f"{expected} false hits expected")
        if hit.face is not None:
            facts.append(f"face_index {hit.face.index}")
        if hit.folder is not None:
            facts.append(f"{count(hit.photographs, 'photo', 'photos')} of {hit.folder}")
        yield {
            "picture": pictures.of(gallery.photo_path(hit.row), hit.face),
            "rank": hit.rank,
            "score": hit.score,
            "percent": 100 * min(max(hit.score, 0.0), 1.0),
            "path": hit.path,
            "facts": facts,
        }
