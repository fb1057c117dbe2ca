"""The answers of a search as one HTML page, without a script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..pipeline.contract import limits_of
from ..search.answers import Answer, Hit
from ..storage.file import EmbeddingFile
from .page import check_page_path, count, render, save_page
from .thumbnails import Thumbnails

_QUERIES, _PICTURES = 200, 5000  # of a page at most: it is one file of some ten megabytes
_CONTENTS_FROM, _OPEN_TO = 4, 30  # queries: fewer need no contents, more would fill the screen with them


class PageAnswers:
    """The first answers of a search, as many as a page shows.

    Attributes:
        asked: queries in all.
        answers: the answers kept.
        search_ms: time of the index search for all queries.
    """

    def __init__(self, asked: int, k: int) -> None:
        """Keep none yet.

        Args:
            asked: queries in all.
            k: hits of each at most.
        """
        self.asked = asked
        self.answers: list[Answer] = []
        self.search_ms = 0.0
        self._room = min(_QUERIES, max(1, _PICTURES // (1 + k)))

    def add(self, answer: Answer) -> None:
        """Take the next answer, if there is room for it."""
        self.search_ms += 0.0 if answer.error else answer.search_ms
        if len(self.answers) < self._room:
            self.answers.append(answer)


def write_page(path: Path, gallery: EmbeddingFile, shown: PageAnswers, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        gallery: the file that was searched.
        shown: one answer at least.
        force: replace an existing file.
    Raises:
        ConfigError: `path` is no place for a page.
        OutputExistsError: the page exists, and `force` is not given.
        StorageError: the page cannot be written; an existing file stays.
    """
    check_page_path(path, force=force)
    save_page(path, _page(gallery, shown), gallery.path)


def _page(gallery: EmbeddingFile, shown: PageAnswers) -> str:
    facts, pictures = shown.answers[0].facts, Thumbnails(limits_of(gallery.contract))
    return render(
        "search",
        styles=["search"],
        title=f"Search in {gallery.path.name}",
        warning=facts.warning,
        summary=[
            count(shown.asked, "query", "queries"),
            f"{facts.rows:,} embeddings",
            f"model {facts.model_label}",
            f"search {shown.search_ms:,.1f} ms",
            f"index {facts.index}",
        ],
        explanation="" if facts.calibration is None else facts.calibration.explain(),
        asked=shown.asked,
        contents=len(shown.answers) >= _CONTENTS_FROM,
        open=len(shown.answers) <= _OPEN_TO,
        sections=[_section(gallery, answer, pictures) for answer in shown.answers],
    )


def _section(gallery: EmbeddingFile, answer: Answer, pictures: Thumbnails) -> dict[str, Any]:
    """A query and its hits, for the template."""
    return {
        "query": answer.query,
        "picture": pictures.of(os.fsencode(answer.query), answer.face),
        "best": answer.error.partition(":")[0] or (f"{answer.hits[0].score:.4f}" if answer.hits else "no hit"),
        "error": answer.error,
        "count": count(len(answer.hits), *(("folder", "folders") if answer.facts.by_folder else ("hit", "hits"))),
        "notes": answer.notes,
        "hits": [_hit(gallery, hit, pictures) for hit in answer.hits],
    }


def _hit(gallery: EmbeddingFile, hit: Hit, pictures: Thumbnails) -> dict[str, Any]:
    facts = []
    if hit.expected is not None:
        facts.append(f"{hit.expected} false hits expected")
    if hit.face is not None:
        facts.append(f"face_index {hit.face.index}")
    if hit.folder is not None:
        facts.append(f"{count(hit.photographs, 'photo', 'photos')} of {hit.folder}")
    return {
        "picture": pictures.of(gallery.photo_path(hit.row), hit.face),
        "rank": hit.rank,
        "score": hit.score,
        "percent": 100 * min(max(hit.score, 0.0), 1.0),
        "path": hit.path,
        "facts": facts,
    }
