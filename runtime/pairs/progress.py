"""How far a search for pairs is: a live line on a terminal, one line every five seconds on a pipe."""

from __future__ import annotations

import time
from typing import TextIO

from ..pipeline.progress import LiveLine, resident_bytes
from ..text import duration


class PairProgress:
    """Counts compared pairs and shows them on stderr. Owned by `with`.

    Attributes:
        compared: pairs by this process.
        elapsed_s: from the beginning to the end of the `with`, or to now.
    """

    def __init__(self, total: int, done: int, stream: TextIO | None = None) -> None:
        self.compared = 0
        self._total, self._before = total, done
        self._live = LiveLine(stream)
        self._start = time.monotonic()
        self._stopped = 0.0

    @property
    def elapsed_s(self) -> float:
        return (self._stopped or time.monotonic()) - self._start

    @property
    def rate(self) -> float:
        """Pairs compared a second."""
        return self.compared / max(self.elapsed_s, 1e-9)

    def add(self, compared: int, found: int) -> None:
        """Count a block; show the state when it is time.

        Args:
            compared: pairs in it.
            found: pairs found so far, in all blocks.
        """
        self.compared += compared
        if self._live.is_due():
            self._live.show(self.line(found))

    def line(self, found: int) -> str:
        """The state in one line."""
        done = self._before + self.compared
        left = duration((self._total - done) / self.rate) if self.compared else "unknown"
        return (
            f"{100 * done / max(1, self._total):.1f} % of {self._total:,} comparisons, "
            f"{self.rate / 1e6:,.1f} million/s, {left} left; {found:,} pairs; {resident_bytes() / 1e6:,.0f} MB"
        )

    def __enter__(self) -> PairProgress:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = time.monotonic()
        self._live.__exit__(*exc)
