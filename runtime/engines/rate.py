"""How fast engines are on this machine: they take turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .open import open_runner

ROUNDS = 5
_SECONDS = 0.3  # of a turn


def measure_rates(engines: Sequence[Path], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Pictures a second of each engine, at the best batch size of its profile: medians of ROUNDS turns.

    Args:
        engines: engine files of embedding models, of one size.
        clock: seconds.
    Raises:
        EngineError: one does not run here.
    """
    rates: list[list[float]] = [[] for _ in engines]
    with ExitStack() as stack:
        runners = [stack.enter_context(open_runner(engine)) for engine in engines]
        pictures = [
            np.zeros((runner.info.profile[1], runner.info.size, runner.info.size, 3), np.uint8) for runner in runners
        ]
        for turn in range(ROUNDS + 1):  # the first warms up
            for runner, batch, found in zip(runners, pictures, rates, strict=True):
                began, count = clock(), 0
                while count == 0 or clock() - began < _SECONDS:
                    runner.infer(batch)
                    count += len(batch)
                if turn:
                    found.append(count / (clock() - began))
    return [statistics.median(found) for found in rates]
