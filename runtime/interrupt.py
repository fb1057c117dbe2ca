"""Signals: stop in good order, pause and go on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .errors import Interrupted

logger = logging.getLogger(__name__)


class Control:
    """Handlers for SIGINT, SIGTERM and SIGUSR1 while a run lives. Owned by `with`, in the main thread.

    Before there is anything to lose, SIGINT and SIGTERM raise Interrupted. While `deferring`, the first one is only
    noted, for the run to look at when nothing is in flight; the second one ends the process on the spot, as a kill
    would. SIGUSR1 pauses, and goes on the next time.

    Attributes:
        signum: the signal that asked to stop, or 0.
        deferring: set while results are made and written.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.deferring = False
        self._going = threading.Event()
        self._going.set()
        self._before: dict[int, Any] = {}

    @property
    def paused(self) -> bool:
        """Whether SIGUSR1 holds the run."""
        return not self._going.is_set()

    def wait_while_paused(self) -> bool:
        """Wait for the run to go on; False when it is to stop."""
        while not self.signum and not self._going.wait(timeout=0.5):
            pass
        return not self.signum

    def stop_if_asked(self) -> None:
        """Raise if a signal has been noted.

        Raises:
            Interrupted: it has.
        """
        if self.signum:
            name = signal.Signals(self.signum).name
            raise Interrupted(f"stopped by {name}; what is complete stays. The same command goes on", self.signum)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = bool(self.signum), signum
        name = signal.Signals(signum).name
        if not self.deferring:
            self.stop_if_asked()
        elif not again:
            logger.warning("%s: finishing what is in flight; once more to stop at once and lose that", name)
        else:
            logger.warning("%s again: stopped at once. The same command goes on from the last segment", name)
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the live line hid the cursor
            logging.shutdown()
            # Threads are inside native code, which an orderly exit would pull from under them.
            os._exit(128 + signum)

    def _toggle(self, signum: int, frame: FrameType | None) -> None:
        if self.paused:
            logger.warning("SIGUSR1: going on")
            self._going.set()
        else:
            logger.warning("SIGUSR1: paused; send it once more to go on")
            self._going.clear()

    def __enter__(self) -> Control:
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Callable[[int, FrameType | None], None]] = {
                signal.SIGINT: self._stop,
                signal.SIGTERM: self._stop,
                signal.SIGUSR1: self._toggle,
            }
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
