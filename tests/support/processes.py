"""Helpers of tests that disturb a run: small segments, a wait for the first one, and a comparison with a whole run."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from compare import differences

# A run that makes a durable piece several times a second: one that can be disturbed between two of them.
SMALL_SEGMENTS = ("--segment-rows", 256, "--segment-seconds", 0.2, "--batch-size", 4)


def assert_same_file(one: Path, other: Path) -> None:
    assert differences(one, other) == []


def segments(output: Path) -> list[Path]:
    return sorted(output.parent.glob("o.h5.parts/segment-*.h5"))


def wait_for_segment(output: Path) -> None:
    """Until the run has made its first segment durable."""
    for _ in range(3000):
        if segments(output):
            return
        time.sleep(0.01)
    raise AssertionError("no segment appeared in 30 s")


def file_size_limit(limit_bytes: int) -> Callable[[], None]:
    """For `preexec_fn`: a process that may write no file beyond this size, as if the disk were full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
