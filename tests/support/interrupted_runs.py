"""Interrupt runs of `facemill process`, and check that they finish with the file of an undisturbed run."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.embedding_files import differences
from tests.support.facemill_command import ROOT, RunningCommand, facemill, start_facemill, summary

# Makes a durable segment several times a second, so that a test can interrupt a run between two segments.
SMALL_SEGMENTS = ("--segment-rows", 128, "--segment-seconds", 0.2, "--batch-size", 4)


@dataclass(frozen=True)
class InterruptedRun:
    """One command, run twice: first in a process that a test ends, then to its end.

    Attributes:
        output: the file that the command writes; nothing else may be in its folder.
        arguments: arguments of `facemill`.
        expected: the same file, written by an undisturbed run.
    """

    output: Path
    arguments: tuple[object, ...]
    expected: Path

    def start(self, *more: object) -> RunningCommand:
        """Start the command, and return once its first segment is durable."""
        process = start_facemill(*self.arguments, *more)
        wait_for_segment(self.output)
        return process

    def kill(self) -> None:
        """Start the command, and kill it once its first segment is durable."""
        with self.start() as process:
            process.kill()

    def resume(self, *more: object) -> tuple[dict[str, Any], str]:
        """Run the command again and compare its file with the undisturbed one; returns its summary and its stderr."""
        result = facemill(*self.arguments, "--json", *more)
        answer = summary(result)
        assert_same_file(self.output, self.expected)
        assert os.listdir(self.output.parent) == [self.output.name]
        return answer, result.stderr


def assert_same_file(path: Path, expected: Path) -> None:
    """Assert that two embedding files are equal, except for what names the run."""
    assert differences(path, expected) == []


def segments(output: Path) -> list[Path]:
    """The durable segments of an unfinished run."""
    return sorted(output.parent.glob(f"{output.name}.parts/segment-*.h5"))


def wait_for_segment(output: Path) -> None:
    """Wait until the run has made its first segment durable."""
    for _ in range(6000):
        if segments(output):
            return
        time.sleep(0.01)
    raise AssertionError("no segment appeared in 60 s")


def file_size_limit(limit_bytes: int) -> Callable[[], None]:
    """Make a `preexec_fn` that limits the size of files, as if the disk were full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def kill_at(target: str, *command: object) -> None:
    """Run a command that is killed when it calls a function of ours, such as `runtime.files.sync_folder`."""
    module = target.rpartition(".")[0]
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {module}\n"
        f"{target} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from runtime.cli.app import main\n"
        f"main({[str(argument) for argument in command]!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
