"""How many queries a page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engines.engine import read_engine
from runtime.faces.rules import FaceRules
from runtime.index.measure import IndexFacts
from runtime.pages.search_page import PageAnswers, write_page
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.search.search import Answer, Answers
from runtime.storage.file import EmbeddingFile


def batch(first: int, count: int) -> Answers:
    return Answers(
        tuple(Answer(f"{i}.jpg") for i in range(first, first + count)), 5, "m", "0" * 64, False, 2.0, IndexFacts("flat")
    )


@pytest.mark.parametrize(("k", "kept"), [(10, 200), (24, 200), (49, 100), (10_000, 1)])
def test_a_page_shows_the_first_queries(k: int, kept: int) -> None:
    shown = PageAnswers(500, k)
    for first in range(0, 500, 90):
        shown.add(batch(first, min(90, 500 - first)))
    assert shown.found is not None
    assert [answer.query for answer in shown.found.answers] == [f"{i}.jpg" for i in range(kept)]
    assert shown.found.search_ms == 12.0


def test_a_page_says_that_it_does_not_show_all(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    process(
        Request(
            (str(photos / "3"),), tmp_path / "people.h5", read_engine(tiny_engine), limit=3, faces=FaceRules("none")
        )
    )
    for asked, words in ((250, True), (200, False)):
        shown = PageAnswers(asked, 1)
        shown.add(batch(0, asked))
        with EmbeddingFile(tmp_path / "people.h5") as gallery:
            write_page(tmp_path / "a.html", gallery, shown, force=True)
        text = (tmp_path / "a.html").read_text("utf-8")
        assert text.count("<section") == 200
        assert f"{asked} queries" in text
        assert ("shows the first 200 queries" in text) is words
