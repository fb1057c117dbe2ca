"""Counts, rates and remaining times of a job, and their progress lines."""

from __future__ import annotations

import io
import logging
import os
import pty
from collections.abc import Iterator

import pytest

from runtime import progress
from runtime.pipeline.stages import StageClock
from runtime.pipeline.summary import bottleneck
from runtime.progress import LiveLine, Reporter, State, resident_bytes, track
from runtime.text import duration
from tests.support.errors import raises


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Calls:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.started_with: list[tuple[str, int, int]] = []
        self.states: list[State] = []
        self.last: list[State] = []

    def started(self, job: str, total: int, done: int) -> None:
        self.started_with.append((job, total, done))

    def advanced(self, state: State) -> None:
        self.states.append(state)

    def finished(self, state: State) -> None:
        self.last.append(state)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


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


def test_the_state_counts_outcomes_and_names_the_bottleneck(clock: Clock) -> None:
    clocks = [StageClock("decode", 2), StageClock("infer", 1)]
    calls = Calls()
    with Reporter(
        "process", 1000, done=100, unit="images", listener=calls, bottleneck=lambda: bottleneck(clocks, 1.0)
    ) as reporter:
        clock.now += 2
        clocks[0].add(1.0, 30)
        clocks[1].add(0.9, 30)
        reporter.advance(30, {"embedded": 28, "corrupt": 2})
    (state,) = calls.states
    assert calls.started_with == [("process", 1000, 100)]
    assert (state.done, state.total, state.per_s, state.eta_s, state.elapsed_s) == (130, 1000, 15, 58, 2)
    assert state.counts == {"embedded": 28, "corrupt": 2}
    assert state.bottleneck == "infer-bound"  # 0.9 s on one thread is more than 1.0 s on two
    assert state.resident_bytes > 10e6
    line = state.line()
    assert line.startswith("process: 130/1,000 (13.0 %), 15 images/s, 58 s left; embedded 28, corrupt 2; ")
    assert line.endswith(" MB RAM; infer-bound")
    assert calls.last == [state]


def test_an_idle_run_has_no_bottleneck() -> None:
    assert bottleneck([StageClock("a", 1)], 1.0) == "idle"


def test_the_memory_of_this_process_is_reported() -> None:
    assert 10e6 < resident_bytes() < 50e9


def test_work_of_an_earlier_run_does_not_count_for_the_rate(clock: Clock) -> None:
    pipe = io.StringIO()
    with Reporter("pairs", 1000_000_000, done=500_000_000, unit="comparisons", listener=LiveLine(pipe)) as reporter:
        assert (reporter.state().done, reporter.state().per_s, reporter.state().eta_s) == (500_000_000, 0, None)
        assert "(50.0 %), 0 comparisons/s, unknown left; " in reporter.state().line()
        clock.now = 104.0
        reporter.advance(60_000_000, {"pairs": 7})
        assert pipe.getvalue() == ""
        clock.now = 110.0
        reporter.advance(40_000_000, {"pairs": 2})
        assert pipe.getvalue().startswith(
            "pairs: 600,000,000/1,000,000,000 (60.0 %), 10,000,000 comparisons/s, 40 s left; pairs 9; "
        )
        clock.now = 111.0
        reporter.advance(1)
    clock.now = 200.0
    assert pipe.getvalue().count("\n") == 1
    assert reporter.state().elapsed_s == 11
    assert reporter.state().done == 600_000_001


def test_the_rate_covers_the_last_minute(clock: Clock) -> None:
    calls = Calls()
    with Reporter("slow start", 10_000, listener=calls) as reporter:
        for second in range(1, 181):
            clock.now = 100.0 + second
            reporter.advance(1 if second <= 100 else 10)
    assert calls.states[99].per_s == 1
    assert 1 < calls.states[130].per_s < 10
    assert calls.last[0].per_s == 10
    assert calls.last[0].eta_s == (10_000 - 900) / 10


def test_a_listener_is_called_at_most_five_times_per_second(clock: Clock) -> None:
    calls = Calls()
    with Reporter("many", 1000, listener=calls) as reporter:
        for _ in range(1000):
            clock.now += 0.01
            reporter.advance(1)
        assert 40 <= len(calls.states) <= 50
    assert calls.last[0].done == 1000


def test_a_listener_is_told_of_the_end_of_a_failed_job() -> None:
    calls = Calls()

    def blocks() -> Iterator[range]:
        yield range(1)
        raise OSError("full")

    with raises(OSError, "full"):
        list(track(blocks(), "writing", 2, listener=calls))
    assert [state.done for state in calls.last] == [1]


def test_a_library_call_logs_a_line_every_five_seconds(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for block in track([range(400), range(400), range(200)], "counted", 1000):
            clock.now += 4 if len(block) == 400 else 10
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("counted: 800/1,000 (80.0 %), 100 rows/s, 2 s left; ")
    assert lines[1].startswith("counted: 1,000/1,000 (100.0 %), 56 rows/s, 0 s left; ")


def test_outcomes_of_an_earlier_run_count() -> None:
    reporter = Reporter("process", 10, done=4, counts={"embedded": 3, "corrupt": 1})
    reporter.advance(2, {"embedded": 1, "no-face": 1})
    assert reporter.state().counts == {"embedded": 4, "corrupt": 1, "no-face": 1}
    assert reporter.state().done == 6


def test_downloads_of_unknown_size_show_megabytes_only(clock: Clock) -> None:
    reporter = Reporter("model.onnx", 0, done=1_000_000, unit="bytes")
    clock.now += 2
    reporter.advance(3_000_000)
    assert reporter.state().line().startswith("model.onnx: 4.0 MB, 1.5 MB/s, unknown left; ")
    assert reporter.state().eta_s is None


def test_a_terminal_shows_one_line_without_control_sequences(clock: Clock) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        with Reporter("\x1b[31m[red]evil[/red]", 10, listener=LiveLine(terminal)) as reporter:
            clock.now += 1
            reporter.advance(5)
        written = ""
        while "\x1b[?25h" not in written:  # the cursor is visible again
            written += os.read(ours, 65_536).decode()
    os.close(ours)
    assert "\x1b[31m" not in written
    assert "[red]evil[/red]" in written
