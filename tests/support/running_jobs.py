"""The processes of jobs: find them, and hold one still in the middle of its work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.interrupted_runs import wait_for_segment


def worker_of(job: Path) -> int | None:
    """The process of a job, by the folder of the job; None without one.

    `/proc/locks` does not tell: for the kernel, the server holds the lock that it passed on.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(job) in words and b") Z " not in (process / "stat").read_bytes():
                return int(process.name)
    return None


@contextmanager
def held(job: Path, output: Path) -> Iterator[int]:
    """Hold a job still after its first segment, so that it is in its middle however slow the test is."""
    wait_for_segment(output)
    worker = worker_of(job)
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    yield worker
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)


def kill_jobs(output: Path) -> None:
    """Kill the jobs that make files in a folder: they outlive their server, but not their test."""
    for job in output.glob(".facemill-jobs/2*"):
        with suppress(ProcessLookupError):
            if (worker := worker_of(job)) is not None:
                os.kill(worker, signal.SIGKILL)
