"""How long a search takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median_ms(search: Callable[[int], object], runs: int, *, most_s: float = 5.0) -> float:
    """Median time of one call, after one that does not count; fewer calls where they take long."""
    search(0)
    times: list[float] = []
    while len(times) < runs and sum(times) < 1000 * most_s:
        start = time.perf_counter()
        search(len(times))
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
