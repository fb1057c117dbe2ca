"""How fast engines are on this machine: they take turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from .backends import open_runner
from .engine import Engine

ROUNDS = 5
_SECONDS = 0.3  # of a turn


def measure_rates(engines: Sequence[Engine], side: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Pictures a second of each engine, at the best batch size of its profile: medians of ROUNDS turns.

    Args:
        engines: the engines.
        side: of their pictures, pixels.
        clock: the time of day in seconds, which says how long a turn lasts.
    Raises:
        EngineError: one does not run here.
        OutOfMemoryError: they do not fit beside each other.
    """
    rates: list[list[float]] = [[] for _ in engines]
    with ExitStack() as stack:
        runners = [stack.enter_context(open_runner(engine)) for engine in engines]
        pictures = [np.zeros((runner.info.profile[1], side, side, 3), np.uint8) for runner in runners]
        for turn in range(ROUNDS + 1):  # the first warms up
            for runner, batch, found in zip(runners, pictures, rates, strict=True):
                began, count, busy_s = clock(), 0, 0.0
                while count == 0 or clock() - began < _SECONDS:
                    busy_s += runner.infer_s(batch)
                    count += len(batch)
                if turn:
                    found.append(count / busy_s)
    return [statistics.median(found) for found in rates]
