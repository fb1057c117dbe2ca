"""The number of queries on a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engines.engine import read_engine
from runtime.faces.rules import FaceRules
from runtime.index.measure import IndexFacts
from runtime.pages.search_page import PageAnswers, write_page
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.search.answers import Answer, SearchFacts
from runtime.storage.file import EmbeddingFile

FACTS = SearchFacts(5, "m", "0" * 64, False, IndexFacts("flat"))


def answers(count: int) -> list[Answer]:
    return [Answer(f"{i}.jpg", FACTS, search_ms=0.5) for i in range(count)]


def fill_page(queries: int, k: int) -> PageAnswers:
    shown = PageAnswers(queries, k)
    for answer in answers(queries):
        shown.add(answer)
    return shown


@pytest.mark.parametrize(("k", "count"), [(10, 200), (24, 200), (49, 100), (10_000, 1)])
def test_a_page_shows_the_first_queries(k: int, count: int) -> None:
    shown = fill_page(500, k)
    assert [answer.query for answer in shown.answers] == [f"{i}.jpg" for i in range(count)]
    assert shown.search_ms == 250.0


@pytest.mark.slow
def test_a_partial_page_says_so(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    process(
        Request(
            (str(photos / "3"),), tmp_path / "people.h5", read_engine(tiny_engine), limit=3, faces=FaceRules("none")
        )
    )
    for queries, is_partial in ((250, True), (200, False)):
        shown = fill_page(queries, 1)
        with EmbeddingFile(tmp_path / "people.h5") as gallery:
            write_page(tmp_path / "a.html", gallery, shown, force=True)
        text = (tmp_path / "a.html").read_text("utf-8")
        assert text.count("<section") == 200
        assert f"{queries} queries" in text
        assert ("shows the first 200 queries" in text) is is_partial
