"""Gives jobs their turns, one at a time, and starts again what a crash or `kill -9` has ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from ..errors import FacemillError
from .events import last_progress
from .job import Job, give_up
from .launch import launch
from .store import JobStore

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_MAX_STARTS = 3  # in a row without a photo more


class Supervisor:
    """A thread of a server that looks after its jobs. The jobs themselves do not need it. Used in a `with` block.

    Jobs that a signal stopped, because the machine went down, are resumed when the supervisor starts.
    """

    def __init__(self, store: JobStore, on_finished: Callable[[Job], None]) -> None:
        """Watch the jobs of a folder.

        Args:
            store: the jobs.
            on_finished: called once for each finished job, in the thread; also for those that finished before.
        """
        self._store, self._on_finished = store, on_finished
        self._wake, self._ending = threading.Event(), False
        self._finished: set[str] = set()
        self._starts: dict[str, tuple[int, int]] = {}  # by job: photos done at its last start, starts since then
        self._children: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def wake(self) -> None:
        """Look at the jobs now, because one was added or changed."""
        self._wake.set()

    def stop(self) -> None:
        """Start no more jobs. Those that run go on. Safe in a signal handler, so that it wakes nobody."""
        self._ending = True

    def _run(self) -> None:
        with suppress(FacemillError, OSError):
            for job in self._store.jobs():
                if job.state().name == "stopped":
                    self._store.resume(job)
        while not self._ending:
            self._wake.clear()
            try:
                self._look()
            except (FacemillError, OSError) as err:
                logger.error("the jobs cannot be looked after: %s", err)
            self._wake.wait(_LOOK_EVERY_S)

    def _look(self) -> None:
        """Take note of jobs that have ended, and start the oldest that waits if none runs."""
        self._reap()
        waiting, finished, busy = [], [], False
        for job in self._store.jobs():
            if job.id in self._finished:
                continue
            state = job.state().name
            if state == "finished":
                finished.append(job)
            elif state == "waiting":
                waiting.append(job)
            busy = busy or state in ("running", "pausing", "stopping")
        if waiting and not busy and not self._ending:
            self._start(waiting[0])
        for job in finished:
            if not self._ending:
                self._finished.add(job.id)
                self._on_finished(job)

    def _start(self, job: Job) -> None:
        with self._store.lock():  # else two servers would start two jobs
            if any(other.lives() for other in self._store.jobs() if other.id not in self._finished):
                return
            if job.state().name != "waiting":
                return
            progress = last_progress(job.path)
            done = int(progress["done"]) if progress else 0
            before, starts = self._starts.get(job.id, (done, 0))
            starts = 0 if done > before else starts
            if starts >= _MAX_STARTS:
                give_up(
                    job,
                    f"the process of the job ended {starts} times without a word and without a photo more. It may have "
                    f"been killed because memory is short. Look at {job.log_file} and at the log of the system, and "
                    f"resume the job",
                )
                del self._starts[job.id]
                return
            self._starts[job.id] = (done, starts + 1)
            child = launch(job)
        if child is not None:
            logger.info("the job %s runs as process %d", job.id, child)
            self._children.add(child)

    def _reap(self) -> None:
        """Release processes of jobs that have ended."""
        for child in list(self._children):
            try:
                if os.waitpid(child, os.WNOHANG)[0]:
                    self._children.discard(child)
            except ChildProcessError:
                self._children.discard(child)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self.wake()
        self._thread.join()
