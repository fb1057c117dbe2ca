"""Long work for requests that do not wait for it: the first one starts it, and later ones ask how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import Interrupted, LockedError
from ...interrupt import RunControl
from ...progress import Listener, State

_PATIENCE_S = 2.0  # that a request waits for work that may be short


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that is not done.

    Attributes:
        done: finished share, 0 to 1.
    """

    done: float


class _Progress:
    """Notes the finished share of a job."""

    def __init__(self) -> None:
        self.share = 0.0

    def started(self, job: str, total: int, done: int) -> None:
        self.share = done / total if total else 0.0

    def advanced(self, state: State) -> None:
        self.share = state.done / state.total if state.total else 0.0

    def finished(self, state: State) -> None:
        pass


class _Job:
    def __init__(self, question: Any, work: Callable[[Listener, RunControl], Any]) -> None:
        self.question, self.progress, self.control = question, _Progress(), RunControl()
        self.ended = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None
        self._work = work
        self.thread = threading.Thread(target=self._run, name="review", daemon=True)

    def _run(self) -> None:
        try:
            self.result = self._work(self.progress, self.control)
        except Exception as err:  # a request raises it
            self.error = err
        finally:
            self.ended.set()


class Background:
    """At most one job at a time, in a thread of its own, and the result of the latest. All methods may be called by
    several threads.
    """

    def __init__(self) -> None:
        self._job: _Job | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def ask(self, question: Any, work: Callable[[Listener, RunControl], Any]) -> Any:
        """The result of a job; starts it if nobody has. An answer to an equal question is given again.

        Args:
            question: what is asked.
            work: computes the answer, with a listener that it tells its progress and a control that stops it.
        Returns:
            The result, or `Waiting` if it takes longer than two seconds.
        Raises:
            LockedError: a job with another question runs.
            Exception: what the job raised; the next call tries again.
        """
        with self._lock:
            job = self._job
            if self._stopped:
                raise Interrupted("the server is ending; ask again when it runs", 0)
            if job is not None and job.question != question:
                if not job.ended.is_set():
                    raise LockedError("another search of this file runs. Send the request again when it has ended")
                job = None
            if job is None:
                job = self._job = _Job(question, work)
                job.thread.start()
        if not job.ended.wait(_PATIENCE_S):
            return Waiting(job.progress.share)
        if job.error is not None:
            with self._lock:
                if self._job is job:
                    self._job = None
            raise job.error
        return job.result

    def stop(self) -> None:
        """Stop the job that runs; what it saved stays."""
        with self._lock:
            self._stopped = True
            if self._job is not None:
                self._job.control.stop()

    def close(self) -> None:
        """Stop, and wait for the end."""
        self.stop()
        if self._job is not None:
            self._job.thread.join()
