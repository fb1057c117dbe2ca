"""How far a long job is, in the log, every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..storage.gallery import Gallery
from ..text import duration

_EVERY_S = 5.0

logger = logging.getLogger(__name__)


class Eta:
    """Shares of a job that are done, with the time that the rest will take if it goes on like this."""

    def __init__(self) -> None:
        self._what = ""
        self._start = self._said = time.monotonic()

    def __call__(self, what: str, done: float, more: str = "") -> None:
        """Say it when it is time.

        Args:
            what: the job; the clock starts anew with another one.
            done: its share, 0 to 1.
            more: to be added to the line.
        """
        now = time.monotonic()
        if what != self._what:
            self._what, self._start = what, now
        if now - self._said < _EVERY_S:
            return
        self._said = now
        left = duration((now - self._start) * (1 - done) / done) if done > 0 else "unknown"
        logger.info("%s: %.1f %%, %s left%s", what, 100 * done, left, more and f"; {more}")


def paced(gallery: Gallery, what: str) -> Iterator[NDArray[np.float32]]:
    """The blocks of a gallery; every few seconds a line says how far they are, and how long the rest will take.

    Args:
        gallery: an open embedding file.
        what: the job that they are read for.
    """
    say, rows = Eta(), 0
    for block in gallery.blocks():
        say(what, rows / gallery.rows)
        yield block
        rows += len(block)
