"""Measure the speed of engines on this machine. They take turns, so that other load affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from .backends import open_runner
from .engine import Engine

ROUNDS = 5
_TURN_S = 0.3


def measure_rates(engines: Sequence[Engine], side: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Images per second of each engine at the optimum batch size of its profile: medians of ROUNDS turns.

    Args:
        engines: the engines.
        side: side of their images, pixels.
        clock: returns seconds; it ends the turns.
    Raises:
        EngineError: an engine does not run on this machine.
        OutOfMemoryError: the engines do not fit into memory together.
    """
    rates: list[list[float]] = [[] for _ in engines]
    with ExitStack() as stack:
        runners = [stack.enter_context(open_runner(engine)) for engine in engines]
        pictures = [np.zeros((runner.info.profile[1], side, side, 3), np.uint8) for runner in runners]
        for turn in range(ROUNDS + 1):  # the first is the warm-up
            for runner, batch, engine_rates in zip(runners, pictures, rates, strict=True):
                start_s, count, busy_s = clock(), 0, 0.0
                while count == 0 or clock() - start_s < _TURN_S:
                    busy_s += runner.infer_s(batch)
                    count += len(batch)
                if turn:
                    engine_rates.append(count / busy_s)
    return [statistics.median(engine_rates) for engine_rates in rates]
