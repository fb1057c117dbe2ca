"""What a run tells while it works: a live line on a terminal, one line every five seconds on a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ..text import duration
from .stages import StageClock

if TYPE_CHECKING:
    from rich.status import Status

_WINDOW = 10_000
_LINE_EVERY_S = 5.0


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bottleneck(clocks: Sequence[StageClock], elapsed_s: float) -> str:
    """The verdict: `infer-bound`, for the stage whose workers waited least."""
    busiest = max(clocks, key=lambda clock: clock.busy_s / clock.workers)
    return f"{busiest.name}-bound" if busiest.busy_s > 0 and elapsed_s > 0 else "idle"


class LiveLine:
    """One line of state on stderr, renewed on a terminal, printed now and then on a pipe. Owned by `with`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = time.monotonic()
        self._live: Status | None = None

    def is_due(self) -> bool:
        """Whether it is time for the next one; asked again, it is not."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self._live else _LINE_EVERY_S):
            return False
        self._shown = now
        return True

    def show(self, line: str) -> None:
        """Show it in place of the one before, or below it."""
        if self._live is not None:
            self._live.update(line)
        else:
            print(line, file=self._stream, flush=True)

    def __enter__(self) -> LiveLine:
        if self._stream.isatty():
            from rich.console import Console

            self._live = Console(file=self._stream, highlight=False, markup=False).status("starting")
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()


class Progress:
    """Counts finished photographs and shows them on stderr. Owned by `with`."""

    def __init__(self, total: int, done: int, clocks: Sequence[StageClock], stream: TextIO | None = None) -> None:
        self._total = total
        self._done = done
        self._clocks = clocks
        self._live = LiveLine(stream)
        self._counts: Counter[str] = Counter()
        self._start = time.monotonic()
        self._window = deque([(self._start, done)])

    def add(self, counts: Counter[str]) -> None:
        """Count finished photographs, by outcome; show the state when it is time."""
        self._counts.update(counts)
        self._done += counts.total()
        self._window.append((time.monotonic(), self._done))
        while len(self._window) > 2 and self._done - self._window[1][1] >= _WINDOW:
            self._window.popleft()
        self.tick()

    def tick(self) -> None:
        """Show the state when it is time."""
        if self._live.is_due():
            self._live.show(self.line())

    def line(self) -> str:
        """The state in one line."""
        (then, before), (now, done) = self._window[0], self._window[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        eta = duration((self._total - done) / rate) if rate else "unknown"
        counts = ", ".join(f"{name} {count:,}" for name, count in self._counts.items() if count)
        verdict = bottleneck(self._clocks, now - self._start)
        memory = resident_bytes() / 1e6
        return (
            f"{done:,}/{self._total:,} ({100 * done / max(1, self._total):.1f} %), {rate:,.0f} images/s, "
            f"{eta} left; {counts}; {memory:,.0f} MB; {verdict}"
        )

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(*exc)
