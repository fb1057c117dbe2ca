"""Progress of a job: `Reporter` counts the work, a `Listener` shows it. Library calls log it by default."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

from .text import duration, printable

if TYPE_CHECKING:
    from rich.status import Status

_ADVANCE_EVERY_S = 0.2
_LINE_EVERY_S = 5.0
_WINDOW_S = 60.0  # of the rate, because a run speeds up after its warm-up and slows down on large files

logger = logging.getLogger(__name__)

Block = TypeVar("Block", bound=Sized)


@dataclass(frozen=True, slots=True)
class State:
    """Progress of a job at one moment.

    Attributes:
        job: "process", "pairs", "rows into the index" ...
        unit: the counted unit: "images", "comparisons", "rows", "bytes" ...
        done: finished units, including those of an earlier run of the same job.
        total: units of the whole job; 0 if unknown.
        per_s: units per second, over the last minute.
        elapsed_s: seconds since the job started or resumed.
        eta_s: seconds until the job is done at this rate; None if unknown.
        counts: results by name, including those of an earlier run, for example {"embedded": 12, "corrupt": 1}.
        bottleneck: the stage that limits the rate, for example "infer-bound"; "" for a job without stages.
        resident_bytes: RAM of this process, bytes.
    """

    job: str
    unit: str
    done: int
    total: int
    per_s: float
    elapsed_s: float
    eta_s: float | None
    counts: dict[str, int]
    bottleneck: str
    resident_bytes: int

    def line(self) -> str:
        """The state in one line, for a person."""
        scale, unit = (1e6, "MB") if self.unit == "bytes" else (1, self.unit)
        number = ",.1f" if self.unit == "bytes" else ",.0f"
        amount = f"{self.done / scale:{number}}"
        amount += f"/{self.total / scale:{number}}" if self.total else ""
        amount += " MB" if self.unit == "bytes" else ""
        amount += f" ({100 * self.done / self.total:.1f} %)" if self.total else ""
        eta = "unknown" if self.eta_s is None else duration(self.eta_s)
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items() if count)
        parts = (
            f"{self.job}: {amount}, {self.per_s / scale:{number}} {unit}/s, {eta} left",
            counts,
            f"{self.resident_bytes / 1e6:,.0f} MB RAM",
            self.bottleneck,
        )
        return printable("; ".join(part for part in parts if part))


class Listener(Protocol):
    """Shows the progress of jobs. A job calls all three methods from one thread."""

    def started(self, job: str, total: int, done: int) -> None:
        """A job starts, or resumes after `done` of `total` units. A total of 0 is unknown."""

    def advanced(self, state: State) -> None:
        """The job advanced. Called at most five times per second."""

    def finished(self, state: State) -> None:
        """The job finished, was stopped or failed. Called exactly once."""


class Reporter:
    """Counts the work of one job and tells a listener. Use it as a context manager.

    Args:
        job: the name of the job.
        total: units of the whole job; 0 if unknown.
        done: units that an earlier run finished.
        counts: results of that run, by name.
        unit: the counted unit, in the plural.
        listener: receives the progress; None logs a line every five seconds.
        bottleneck: returns the stage that limits the rate.
    """

    def __init__(
        self,
        job: str,
        total: int,
        *,
        done: int = 0,
        counts: Mapping[str, int] | None = None,
        unit: str = "rows",
        listener: Listener | None = None,
        bottleneck: Callable[[], str] = lambda: "",
    ) -> None:
        self._job, self._unit = job, unit
        self._total, self._done = total, done
        self._listener = listener or LogLine()
        self._bottleneck = bottleneck
        self._counts: Counter[str] = Counter(counts or {})
        self._start = self._reported = time.monotonic()
        self._end: float | None = None
        self._samples = deque([(self._start, done)])  # (time, units done), of the last minute

    def advance(self, units: int = 0, counts: Mapping[str, int] | None = None) -> None:
        """Count finished work. Call it with 0 units to show the listener that the job is alive.

        Args:
            units: units finished since the last call.
            counts: results since the last call, by name.
        """
        self._done += units
        self._counts.update(counts or {})
        now = time.monotonic()
        if now - self._reported < _ADVANCE_EVERY_S:
            return
        self._reported = now
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW_S:
            self._samples.popleft()
        self._listener.advanced(self.state())

    def state(self) -> State:
        """The progress now, or at the end of the `with` block."""
        now = time.monotonic() if self._end is None else self._end
        start, done_at_start = self._samples[0]
        per_s = (self._done - done_at_start) / (now - start) if now > start else 0.0
        eta_s = (self._total - self._done) / per_s if per_s and self._total else None
        return State(
            self._job,
            self._unit,
            self._done,
            self._total,
            per_s,
            now - self._start,
            eta_s,
            dict(self._counts),
            self._bottleneck(),
            resident_bytes(),
        )

    def __enter__(self) -> Reporter:
        self._listener.started(self._job, self._total, self._done)
        return self

    def __exit__(self, *exc: object) -> None:
        self._end = time.monotonic()
        self._listener.finished(self.state())


def track(
    blocks: Iterable[Block], job: str, total: int, *, unit: str = "rows", listener: Listener | None = None
) -> Iterator[Block]:
    """Yield blocks, and report the units that the caller has handled.

    Args:
        blocks: blocks whose lengths are counted.
        job, total, unit, listener: see `Reporter`.
    """
    with Reporter(job, total, unit=unit, listener=listener) as reporter:
        for block in blocks:
            yield block
            reporter.advance(len(block))


class LogLine:
    """Listener that logs a line every five seconds, at level INFO; the default of library calls."""

    def __init__(self) -> None:
        self._logged = time.monotonic()

    def started(self, job: str, total: int, done: int) -> None:
        """See `Listener`."""
        self._logged = time.monotonic()

    def advanced(self, state: State) -> None:
        """See `Listener`."""
        now = time.monotonic()
        if now - self._logged >= _LINE_EVERY_S:
            self._logged = now
            logger.info("%s", state.line())

    def finished(self, state: State) -> None:
        """See `Listener`."""


class LiveLine:
    """Listener that writes to stderr: one line updated in place on a terminal, a new line every five seconds on a pipe.

    Args:
        stream: the stream; None for stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._printed = time.monotonic()
        self._live: Status | None = None

    def started(self, job: str, total: int, done: int) -> None:
        """See `Listener`."""
        self._printed = time.monotonic()
        if self._live is None and self._stream.isatty():
            from rich.console import Console

            self._live = Console(file=self._stream, highlight=False).status("starting")
            self._live.start()

    def advanced(self, state: State) -> None:
        """See `Listener`."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(state.line()))  # not a string, because rich would parse [tags] in it
            return
        now = time.monotonic()
        if now - self._printed >= _LINE_EVERY_S:
            self._printed = now
            print(state.line(), file=self._stream, flush=True)

    def finished(self, state: State) -> None:
        """See `Listener`."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def resident_bytes() -> int:
    """Memory of this process that is in RAM, in bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
