"""Try again what the machine refused: a disk or a server that does not answer may be back in a moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import MachineError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # before the second, third, ... try


def retried(work: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Do a piece of work, and do it again after a fault of the machine, with growing pauses.

    Args:
        work: changes nothing if it fails.
        pause: waits for this number of seconds; may raise if the job should stop.
    Raises:
        MachineError: the fault stays.
    """
    for number, pause_s in enumerate(PAUSES_S, 1):
        try:
            return work()
        except MachineError as err:
            reason = err.message.split(". ")[0]
        logger.warning("%s; trying again in %g s (%d of %d)", reason, pause_s, number, len(PAUSES_S))
        pause(pause_s)  # outside the handler, which would keep the memory of the failed work alive
    return work()
