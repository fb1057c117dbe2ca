"""What a run says while it works."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from runtime.pipeline.progress import Progress, bottleneck, resident_bytes
from runtime.pipeline.stages import StageClock
from runtime.text import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min 00 s"),
        (12, "12 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_counts_outcomes_and_names_the_bottleneck() -> None:
    clocks = [StageClock("decode", 2), StageClock("infer", 1)]
    progress = Progress(1000, 100, clocks, io.StringIO())
    clocks[0].add(1.0, 30)
    clocks[1].add(0.9, 30)
    progress.add(Counter(embedded=28, corrupt=2))
    line = progress.line()
    assert line.startswith("130/1,000 (13.0 %)")
    assert "embedded 28, corrupt 2" in line
    assert line.endswith("infer-bound")  # 0.9 s on one thread is more than 1.0 s on two
    assert "MB" in line


def test_an_idle_run_has_no_bottleneck() -> None:
    assert bottleneck([StageClock("a", 1)], 1.0) == "idle"


def test_memory_is_that_of_this_process() -> None:
    assert 10e6 < resident_bytes() < 50e9
