"""Pausing and stopping a job: by a caller's object, or by signals to the process of a command."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, Protocol

from .errors import Interrupted

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1


class Control(Protocol):
    """What a job asks between two pieces of work. Several threads of the job may ask at once."""

    @property
    def paused(self) -> bool:
        """Whether the job is to wait."""

    @property
    def stopping(self) -> bool:
        """Whether the job is to stop."""

    @property
    def signum(self) -> int:
        """The signal that asked to stop; 0 where none did."""

    def wait(self) -> bool:
        """Wait while paused. False if the job is to stop."""

    def in_flight(self) -> AbstractContextManager[None]:
        """Hold while results are made and not yet durable: stopping has to wait for them."""


class RunControl:
    """A control for a caller: any thread may pause, resume or stop the job that was given it."""

    def __init__(self) -> None:
        # Plain attributes, and no lock: a signal handler, which may interrupt any of this, sets them too.
        self._paused = self._stopping = False

    @property
    def paused(self) -> bool:
        """See `Control`."""
        return self._paused

    @property
    def stopping(self) -> bool:
        """See `Control`."""
        return self._stopping

    @property
    def signum(self) -> int:
        """See `Control`."""
        return 0

    def pause(self) -> None:
        """Hold the job after what it has in flight."""
        self._paused = True

    def resume(self) -> None:
        """Let a paused job continue."""
        self._paused = False

    def stop(self) -> None:
        """End the job in good order, paused or not. It raises Interrupted once what is in flight is durable."""
        self._stopping = True

    def wait(self) -> bool:
        """See `Control`."""
        while self._paused and not self._stopping:
            time.sleep(_LOOK_EVERY_S)
        return not self._stopping

    def in_flight(self) -> AbstractContextManager[None]:
        """See `Control`. `stop` never interrupts anything."""
        return nullcontext()


def raise_if_stopping(control: Control) -> None:
    """End a job that is to stop and has nothing in flight.

    Raises:
        Interrupted: it is to stop.
    """
    if control.stopping:
        by = f" by {signal.Signals(control.signum).name}" if control.signum else ""
        raise Interrupted(f"stopped{by}; what is complete stays. Run the same command again to resume", control.signum)


class SignalControl(RunControl):
    """A control by SIGINT, SIGTERM and SIGUSR1, for a command. Use it as a context manager in the main thread.

    SIGINT and SIGTERM stop the job: at once while nothing is in flight, else in good order. The second one ends the
    process on the spot, as a kill would. SIGUSR1 pauses the job, and the next one resumes it. In another thread than
    the main one, which alone may handle signals, it does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._signum = 0
        self._in_flight = False
        self._before: dict[int, Any] = {}

    @property
    def signum(self) -> int:
        """See `Control`."""
        return self._signum

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """See `Control`."""
        self._in_flight = True
        try:
            yield
        finally:
            self._in_flight = False

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        again, self._signum = self._stopping, signum
        self.stop()
        name = signal.Signals(signum).name
        if not self._in_flight:
            raise_if_stopping(self)
        elif not again:
            logger.warning("%s: finishing what is in flight; once more to stop at once and lose that", name)
        else:
            logger.warning("%s again: stopped at once. Run the same command again to resume", name)
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the live line hid the cursor
            logging.shutdown()
            # Threads are inside native code, which an orderly exit would pull from under them.
            os._exit(128 + signum)

    def _pause_or_resume(self, signum: int, frame: FrameType | None) -> None:
        if self.paused:
            logger.warning("SIGUSR1: resumed")
            self.resume()
        else:
            logger.warning("SIGUSR1: paused; send it once more to resume")
            self.pause()

    def __enter__(self) -> SignalControl:
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Callable[[int, FrameType | None], None]] = {
                signal.SIGINT: self._stop,
                signal.SIGTERM: self._stop,
                signal.SIGUSR1: self._pause_or_resume,
            }
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
