"""How far a long pass over the rows is, in the log, and how long a search takes."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .gallery import Gallery

_EVERY_S = 5.0

logger = logging.getLogger(__name__)


def paced(gallery: Gallery, done_so: str) -> Iterator[NDArray[np.float32]]:
    """The blocks of a gallery; every few seconds a line says how many rows are done and how long the rest will take.

    Args:
        gallery: an open embedding file.
        done_so: what becomes of the rows, after their count: "added to the index".
    """
    start = told = time.monotonic()
    rows = 0
    for block in gallery.blocks():
        yield block
        rows += len(block)
        now = time.monotonic()
        if now - told >= _EVERY_S and rows < gallery.rows:
            told = now
            left = (now - start) / rows * (gallery.rows - rows)
            logger.info("%s of %s rows %s, about %.0f s left", f"{rows:,}", f"{gallery.rows:,}", done_so, left)


def median_ms(search: Callable[[int], object], runs: int, *, most_s: float = 5.0) -> float:
    """Median time of one call, after one that does not count; fewer calls where they take long."""
    search(0)
    times: list[float] = []
    while len(times) < runs and sum(times) < 1000 * most_s:
        start = time.perf_counter()
        search(len(times))
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
