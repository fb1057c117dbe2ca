"""The process of a job: `process`, its progress as events, and wishes as a signal to itself."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import FacemillError, Interrupted, MachineError, OutOfMemoryError
from ..interrupt import SignalControl
from ..progress import State
from .events import EventLog, last_progress
from .gpu import GpuUse
from .job import Job

logger = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 0.5
_WISH_EVERY_S = 0.25
_MAX_PHASES = 100  # texts of one process that become events
_PACKAGE = __name__.split(".")[0]
_PHASES = tuple(f"{_PACKAGE}.pipeline.{module}" for module in ("plan", "run", "tuning"))  # they name no photo


def main(folder: str, lock_fd: str) -> None:
    """Run a job to its end, to a pause, or until it is cancelled.

    Args:
        folder: the folder of the job.
        lock_fd: descriptor of its locked file, which this process has inherited and holds until it ends.
    """
    os.set_inheritable(int(lock_fd), False)  # processes of this one must not keep the job alive
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    job = Job(Path(folder))
    with EventLog(job.path) as events:
        events.append("started", durable=True)
        _log_to(events)
        if not _run(job, events):
            sys.exit(1)


def _run(job: Job, events: EventLog) -> bool:
    """Run a job, and store how it ended. Returns whether it did not fail."""
    wishes = _Wishes(job)
    try:
        import cv2

        from ..api.jobs import process

        cv2.setNumThreads(1)  # each thread of the pipeline works on photos of its own
        progress = _Progress(events, last_progress(job.path))
        with SignalControl() as control, wishes:
            summary = process(**job.request().arguments(), listener=progress, control=control)
    except Interrupted as err:
        _end_early(job, events, wishes, err)
        return True
    except FacemillError as err:
        return _fail(job, events, err.code, err.message)
    except MemoryError:
        reason = "no memory is left; expected: memory for one batch. Close other programs, and resume the job"
        return _fail(job, events, OutOfMemoryError.code, reason)
    except Exception as err:
        logger.critical("the job failed", exc_info=True)
        if isinstance(err, OSError):
            reason = f"{err.filename or 'the machine'}: {err.strerror or err}. Fix that, and resume the job"
            return _fail(job, events, MachineError.code, reason)
        reason = f"this is a bug in facemill. Please report it with {job.log_file}"
        return _fail(job, events, FacemillError.code, reason)
    events.append("ended", durable=True, state="finished")
    job.set_end("finished", summary=summary.to_dict())
    return True


def _end_early(job: Job, events: EventLog, wishes: _Wishes, reason: Interrupted) -> None:
    """Store that a job was stopped. After a wish nothing is stored: the wish says what the job is."""
    logger.info("%s", reason.message)
    if wishes.were_heard:
        events.append("ended", durable=True, state="cancelled" if job.wish() == "cancel" else "paused")
        return
    events.append("ended", durable=True, state="stopped")
    name = signal.Signals(reason.signum).name
    job.set_end("stopped", code=reason.code, detail=f"{name} stopped the process. All photos that are done are durable")


def _fail(job: Job, events: EventLog, code: str, detail: str) -> bool:
    logger.error("%s: %s", code, detail)
    events.append("ended", durable=True, state="failed", error={"code": code, "detail": detail})
    job.set_end("failed", code=code, detail=detail)
    return False


class _Wishes:
    """Sends a SIGTERM to this process when its job is to pause or to stop. Used in a `with` block.

    Attributes:
        were_heard: whether that has happened.
    """

    def __init__(self, job: Job) -> None:
        self.were_heard = False
        self._job = job
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wishes", daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(_WISH_EVERY_S):
            if self._job.wish() != "run":
                self.were_heard = True
                os.kill(os.getpid(), signal.SIGTERM)  # SignalControl stops at once, or after the work in flight
                return

    def __enter__(self) -> _Wishes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


class _Progress:
    """A listener that makes events of the progress, at most two a second."""

    def __init__(self, events: EventLog, before: dict[str, Any] | None) -> None:
        """Go on after the last progress of an earlier process of the job, if there was one."""
        self._events = events
        self._gpu: GpuUse | None = None
        self._ran_s = float((before or {}).get("elapsed_s") or 0.0)
        self._written = 0.0

    def started(self, job: str, total: int, done: int) -> None:
        """See `Listener`."""
        if job != "process":
            self._events.append("phase", text=job)
        elif self._gpu is None:  # by now the run has chosen its devices
            self._gpu = GpuUse()

    def advanced(self, state: State) -> None:
        """See `Listener`."""
        if time.monotonic() - self._written >= _PROGRESS_EVERY_S:
            self._write(state)

    def finished(self, state: State) -> None:
        """See `Listener`."""
        self._write(state)

    def _write(self, state: State) -> None:
        self._written = time.monotonic()
        if state.job != "process":  # such as a download, in bytes
            self._events.append("step", step=state.job, done=state.done, total=state.total, unit=state.unit)
            return
        self._events.append(
            "progress",
            done=state.done,
            total=state.total,
            images_per_s=round(state.per_s, 1),
            elapsed_s=round(self._ran_s + state.elapsed_s, 1),
            eta_s=None if state.eta_s is None else round(state.eta_s, 1),
            outcomes=state.counts,
            bottleneck=state.bottleneck,
            memory_bytes=state.resident_bytes,
            gpu=self._gpu and self._gpu.read(),
        )


class _Phases(logging.Handler):
    """Makes events of what a run is about to do: scanning, tuning, writing."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.INFO)
        self._events, self._left = events, _MAX_PHASES

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if record.levelno == logging.INFO and record.name in _PHASES and self._left > 0:
            self._left -= 1
            self._events.append("phase", text=record.getMessage()[:500])


def _log_to(events: EventLog) -> None:
    """Send the log of the package to stderr, which is the log file of the job, and its phases to the events."""
    package = logging.getLogger(_PACKAGE)
    package.setLevel(logging.INFO)
    package.propagate = False
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package.addHandler(lines)
    package.addHandler(_Phases(events))
