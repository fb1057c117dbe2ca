"""What the log says of a long job."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from runtime.index import pace
from runtime.storage import file as file_module
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import write_gallery


def test_it_speaks_every_few_seconds_and_counts_each_job_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    say = pace.Eta()
    with caplog.at_level(logging.INFO):
        for second, what, done in (
            (0, "a", 0.0),
            (2, "a", 0.1),
            (10, "a", 0.25),
            (12, "a", 0.5),
            (16, "b", 0.0),
            (26, "b", 0.5),
        ):
            now[0] = 100.0 + second
            say(what, done, "3 links" if what == "a" else "")
    assert [record.getMessage() for record in caplog.records] == [
        "a: 25.0 %, 30 s left; 3 links",
        "b: 0.0 %, unknown left",
        "b: 50.0 %, 10 s left",
    ]


def test_a_long_pass_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pace, "_EVERY_S", 0.0)
    monkeypatch.setattr(file_module, "_BLOCK_BYTES", 40 * 4 * 400)
    with EmbeddingFile(write_gallery(tmp_path / "people.h5", crowd(1000))) as gallery, caplog.at_level(logging.INFO):
        assert sum(len(block) for block in pace.paced(gallery, "counted")) == 1000
    assert [record.getMessage() for record in caplog.records] == [
        "counted: 0.0 %, unknown left",
        "counted: 40.0 %, 0 s left",
        "counted: 80.0 %, 0 s left",
    ]
