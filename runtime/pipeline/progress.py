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
    from rich.status import Status as LiveLine

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


class Progress:
    """Counts finished photographs and shows them on stderr. Owned by `with`."""

    def __init__(self, total: int, done: int, clocks: Sequence[StageClock], stream: TextIO | None = None) -> None:
        self._total = total
        self._done = done
        self._clocks = clocks
        self._stream = stream or sys.stderr
        self._counts: Counter[str] = Counter()
        self._start = self._shown = time.monotonic()
        self._window = deque([(self._start, done)])
        self._live: LiveLine | None = None

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
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._live else _LINE_EVERY_S):
            self._shown = now
            self._show()

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

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self.line())
        else:
            print(self.line(), file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            from rich.console import Console

            self._live = Console(file=self._stream, highlight=False, markup=False).status("starting")
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
