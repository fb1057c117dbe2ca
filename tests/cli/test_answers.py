"""Print answers as CSV, JSON and a table: one header per output, incomplete answers marked."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from runtime.cli.answers import print_answer, print_end
from runtime.index.measure import IndexFacts
from runtime.metrics.falsematch import Calibration
from runtime.records import FacePlace
from runtime.search.answers import Answer, Hit, SearchFacts

CALIBRATION = Calibration({}, "known", 90, 30, 1000, 0, (500, *[40] * 100, 0), "now", "0")
HIT = Hit(1, 0.05, 7, "a/b\n.jpg", FacePlace(0, (1.0, 2.0, 3.0, -0.2)), CALIBRATION.expected(0.05, 1000), "a", 3)


FACTS = SearchFacts(1000, "m", "0" * 64, True, IndexFacts("flat"), calibration=CALIBRATION, by_folder=True)


def answer_to(query: str) -> Answer:
    return Answer(query, FACTS, (HIT,), faces=2, face=HIT.face, cut=query == "cut", search_ms=4.0)


@pytest.fixture
def answers() -> list[Answer]:
    return [answer_to(query) for query in ("one", "two", "cut", "four")]


def show(answers: list[Answer], form: str) -> None:
    for number, answer in enumerate(answers):
        print_answer(answer, form, first=number == 0)
    print_end(answers[-1].facts, form)


def test_csv_has_one_header(answers: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    show(answers, "csv")
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["query"] for row in rows] == ["one", "two", "cut", "four"]
    assert rows[0] == {
        "query": "one", "rank": "1", "score": "0.050000", "row": "7", "path": "a/b\n.jpg", "search_ms": "4.000",
        "face_index": "0", "left": "1.0", "top": "2.0", "right": "3.0", "bottom": "-0.2",
        "expected_false_hits": "40.0", "at_most": "false", "folder": "a", "photographs": "3",
    }  # fmt: skip
    assert len([line for line in err.splitlines() if line.startswith("cut: ")]) == 2
    assert err.count(": 1 of 2 faces") == 4


def test_json_has_one_line_per_query(answers: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    show(answers, "json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in lines] == ["one", "two", "cut", "four"]
    assert [line.get("cut") for line in lines] == [None, None, True, None]
    assert lines[0]["hits"] == [
        {"rank": 1, "score": 0.05, "row": 7, "path": "a/b\n.jpg", "face_index": 0, "box": [1.0, 2.0, 3.0, -0.2],
         "expected_false_hits": 40.0, "at_most": False, "folder": "a", "photographs": 3}
    ]  # fmt: skip


def test_the_table_names_the_model_once_at_its_end(answers: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    show(answers, "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one  (4.0 ms in 1,000 embeddings)"
    assert lines[2].split() == ["rank", "score", "expected", "face_index", "box", "photographs", "path"]
    assert lines[3].split() == ["1", "0.0500", "40", "0", "1,2,3,0", "3", "a/b\\n.jpg"]
    assert lines[2].index("path") == lines[3].index("a/b")
    assert "  more folders may match: only the best rows were ranked" in lines
    assert lines[-3:-1] == ["model: m (sha256 000000000000)", "index: flat (exact)"]
    assert lines[-1].startswith("expected: false hits")


def test_json_escapes_names_that_are_not_utf8(answers: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    answer = replace(answers[0], query="caf\udce9.jpg", error="unreadable: caf\udce9.jpg")
    print_answer(answer, "json", first=True)
    line = json.loads(capsys.readouterr().out)
    assert line["query"] == "caf\\xe9.jpg"  # most JSON readers refuse a lone surrogate
    assert line["error"] == "unreadable: caf\\xe9.jpg"
