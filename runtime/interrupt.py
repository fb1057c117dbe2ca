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

_POLL_S = 0.1


class Control(Protocol):
    """A job asks it between two pieces of work whether to pause or stop. Several threads may ask at once."""

    @property
    def paused(self) -> bool:
        """Whether the job should pause."""

    @property
    def stopping(self) -> bool:
        """Whether the job should stop."""

    @property
    def signum(self) -> int:
        """The signal that stopped the job; 0 without a signal."""

    def wait(self) -> bool:
        """Wait while paused. Returns False if the job should stop."""

    def in_flight(self) -> AbstractContextManager[None]:
        """A block whose results are not yet durable, so that stopping has to wait for them."""


class RunControl:
    """A control for a caller: any thread may pause, resume or stop the job that uses it."""

    def __init__(self) -> None:
        # Plain attributes without a lock, because a signal handler, which may interrupt any of this, sets them too.
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
        """Pause the job after the work in flight."""
        self._paused = True

    def resume(self) -> None:
        """Let a paused job continue."""
        self._paused = False

    def stop(self) -> None:
        """Stop the job, paused or not. It raises Interrupted when the work in flight is durable."""
        self._stopping = True

    def wait(self) -> bool:
        """See `Control`."""
        while self._paused and not self._stopping:
            time.sleep(_POLL_S)
        return not self._stopping

    def in_flight(self) -> AbstractContextManager[None]:
        """See `Control`. `stop` never interrupts anything."""
        return nullcontext()


def raise_if_stopping(control: Control) -> None:
    """Stop a job with nothing in flight, if it should stop.

    Raises:
        Interrupted: the job should stop.
    """
    if control.stopping:
        by = f" by {signal.Signals(control.signum).name}" if control.signum else ""
        raise Interrupted(f"stopped{by}; finished work is kept. Run the same command again to resume", control.signum)


def pause(seconds: float, control: Control) -> None:
    """Sleep until the time is over or the job should stop, whichever comes first.

    Raises:
        Interrupted: the job should stop.
    """
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and not control.stopping:
        time.sleep(min(_POLL_S, left_s))
    raise_if_stopping(control)


class SignalControl(RunControl):
    """A control by SIGINT, SIGTERM, SIGHUP and SIGUSR1, for a command. Use it as a context manager in the main thread.

    SIGINT, SIGTERM and SIGHUP stop the job: at once if nothing is in flight, else after the work in flight. A second
    signal ends the process immediately, like a kill. A SIGHUP that is ignored (nohup) stays ignored. SIGUSR1 pauses the
    job, and the next SIGUSR1 resumes it. Outside the main thread, which alone may handle signals, it does nothing.
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
        if self._stopping and signum == signal.SIGHUP:
            return  # a terminal that goes away sends several, and systemd one after its SIGTERM: nobody is impatient
        repeated, self._signum = self._stopping, signum
        self.stop()
        name = signal.Signals(signum).name
        if not self._in_flight:
            raise_if_stopping(self)
        elif not repeated:
            logger.warning("%s: finishing the work in flight; send it again to stop now and lose that work", name)
        else:
            logger.warning("%s again: stopped immediately. Run the same command again to resume", name)
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the live line hid the cursor
            logging.shutdown()
            # Threads are inside native code, which an orderly exit would unload while they run it.
            os._exit(128 + signum)

    def _pause_or_resume(self, signum: int, frame: FrameType | None) -> None:
        if self.paused:
            logger.warning("SIGUSR1: resumed")
            self.resume()
        else:
            logger.warning("SIGUSR1: paused; send it again to resume")
            self.pause()

    def __enter__(self) -> SignalControl:
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Callable[[int, FrameType | None], None]] = {
                signal.SIGINT: self._stop,
                signal.SIGTERM: self._stop,
                signal.SIGUSR1: self._pause_or_resume,
            }
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                handlers[signal.SIGHUP] = self._stop
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
