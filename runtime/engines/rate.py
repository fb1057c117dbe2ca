"""How fast engines are on this machine: they take turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .open import open_runner
from .runner import Runner
from .tensorrt.runner import TensorRTRunner

ROUNDS = 5
_SECONDS = 0.3  # of a turn


def measure_rates(engines: Sequence[Engine], side: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Pictures a second of each engine, at the best batch size of its profile: medians of ROUNDS turns.

    Args:
        engines: the engines.
        side: of their pictures, pixels.
        clock: seconds; TensorRT's own seconds are the GPU's, without the copies that the pipeline hides.
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
                    busy_s += _infer(runner, batch, clock)
                    count += len(batch)
                if turn:
                    found.append(count / busy_s)
    return [statistics.median(found) for found in rates]


def _infer(runner: Runner, batch: NDArray[np.uint8], clock: Callable[[], float]) -> float:
    """The seconds that a batch takes."""
    if isinstance(runner, TensorRTRunner):
        with runner.slot() as slot:
            slot.fill(0, batch)
            slot.start(len(batch))
            return slot.finish(len(batch))[1]
    began = clock()
    runner.infer(batch)
    return clock() - began
