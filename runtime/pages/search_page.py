"""Write the answers of a search as one HTML page, without scripts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ..pipeline.contract import limits_of
from ..search.answers import Answer, Hit
from ..storage.file import EmbeddingFile
from .page import check_page_path, count, render, save_page
from .thumbnails import Thumbnails

_MAX_QUERIES, _MAX_PICTURES = 200, 5000  # per page, which keeps it near ten megabytes
_MIN_CONTENTS_QUERIES, _MAX_OPEN_QUERIES = 4, 30  # list of contents: from this many; unfolded up to this many

logger = logging.getLogger(__name__)


class PageAnswers:
    """The first answers of a search, as many as a page shows.

    Attributes:
        query_count: number of queries of the search.
        answers: answers on the page.
        search_ms: time of the index search for all queries, milliseconds.
    """

    def __init__(self, query_count: int, k: int) -> None:
        """Start without answers.

        Args:
            query_count: number of queries of the search.
            k: most hits per query.
        """
        self.query_count = query_count
        self.answers: list[Answer] = []
        self.search_ms = 0.0
        self._max_answers = min(_MAX_QUERIES, max(1, _MAX_PICTURES // (1 + k)))

    def add(self, answer: Answer) -> None:
        """Add the next answer if the page has room for it."""
        self.search_ms += 0.0 if answer.error else answer.search_ms
        if len(self.answers) < self._max_answers:
            self.answers.append(answer)


def write_page(path: Path, embeddings: EmbeddingFile, answers: PageAnswers, *, force: bool = False) -> None:
    """Write the page atomically.

    Args:
        path: ends in .html.
        embeddings: the file that was searched.
        answers: at least one answer.
        force: replace an existing file.
    Raises:
        ConfigError: the name does not end in .html, or the folder does not exist.
        OutputExistsError: the page exists and `force` is false.
        StorageError: the page cannot be written; an existing file is unchanged.
    """
    check_page_path(path, force=force)
    save_page(path, _page(embeddings, answers), embeddings)
    logger.info("page: %s", path)


def _page(embeddings: EmbeddingFile, page: PageAnswers) -> str:
    facts, pictures = page.answers[0].facts, Thumbnails(limits_of(embeddings.contract))
    return render(
        "search",
        styles=["search"],
        title=f"Search in {embeddings.path.name}",
        warning=facts.warning,
        summary=[
            count(page.query_count, "query", "queries"),
            f"{facts.rows:,} embeddings",
            f"model {facts.model_label}",
            f"search {page.search_ms:,.1f} ms",
            f"index {facts.index}",
        ],
        explanation="" if facts.calibration is None else facts.calibration.explain(),
        query_count=page.query_count,
        contents=len(page.answers) >= _MIN_CONTENTS_QUERIES,
        open=len(page.answers) <= _MAX_OPEN_QUERIES,
        sections=[_section(embeddings, answer, pictures) for answer in page.answers],
    )


def _section(embeddings: EmbeddingFile, answer: Answer, pictures: Thumbnails) -> dict[str, Any]:
    """Return a query and its hits for the template."""
    return {
        "query": answer.query,
        "picture": pictures.of(os.fsencode(answer.query), answer.face),
        "best": answer.error.partition(":")[0] or (f"{answer.hits[0].score:.4f}" if answer.hits else "no hit"),
        "error": answer.error,
        "count": count(len(answer.hits), *(("folder", "folders") if answer.facts.by_folder else ("hit", "hits"))),
        "notes": answer.notes,
        "hits": [
            describe_hit(hit) | {"picture": pictures.of(embeddings.photo_path(hit.row), hit.face)}
            for hit in answer.hits
        ],
    }


def describe_hit(hit: Hit) -> dict[str, Any]:
    """Return a hit for the template `hit_text`."""
    facts = []
    if hit.expected is not None:
        facts.append(f"{hit.expected} false hits expected")
    if hit.face is not None:
        facts.append(str(hit.face))
    if hit.folder is not None:
        facts.append(f"{count(hit.photographs, 'photo', 'photos')} of {hit.folder}")
    return {
        "rank": hit.rank,
        "score": hit.score,
        "percent": 100 * min(max(hit.score, 0.0), 1.0),
        "path": hit.path,
        "facts": facts,
    }
