"""What the log says of a long job."""

from __future__ import annotations

import logging

import pytest

from runtime.linkage import eta


def test_it_speaks_every_few_seconds_and_counts_each_job_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: now[0])
    say = eta.Eta()
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
