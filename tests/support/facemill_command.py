"""The console command `facemill`: in this process, as most tests need it, or in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from runtime.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def facemill(
    *arguments: object, cwd: Path = ROOT, stdin: str | bytes | None = None, **environment: object
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, and leave the process as it was.

    Args:
        arguments: the command and what follows it.
        cwd: the folder to run in.
        stdin: what the command reads.
        environment: variables on top of those of this process.
    Returns:
        The same as `subprocess.run` returns, so that a test reads both kinds of runs in one way.
    """
    command = ["facemill", *map(str, arguments)]
    variables = {name: str(value) for name, value in environment.items()}
    with _process_state(cwd):
        done = CliRunner(env=variables).invoke(
            main, command[1:], input=stdin, prog_name="facemill", catch_exceptions=False
        )
    return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)


@contextmanager
def _process_state(cwd: Path) -> Iterator[None]:
    """Change to a folder; afterwards put back the folder, the environment, signal handlers and the package's log."""
    log = logging.getLogger("runtime")
    before = (log.level, log.propagate, log.handlers[:])
    folder, variables = Path.cwd(), os.environ.copy()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for added in log.handlers[:]:
            if added not in before[2]:
                log.removeHandler(added)
                added.close()
        log.level, log.propagate = before[:2]


def command_line(*arguments: object) -> list[str]:
    """The arguments that start a command in another process."""
    return [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)]


def facemill_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: for limits, users, encodings, closed streams, and memory.

    Args:
        arguments: the command and what follows it.
        options: for `subprocess.run`.
    """
    options = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 120, **options}
    return subprocess.run(command_line(*arguments), **options)  # type: ignore[no-any-return]


class RunningCommand(subprocess.Popen[str]):
    """A process that is killed when the `with` block that holds it fails, so that no test waits for it."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def start_facemill(*arguments: object, **options: Any) -> RunningCommand:
    """Start a command in a process of its own and return at once: for signals, kills, and several at once.

    Args:
        arguments: the command and what follows it.
        options: for `subprocess.Popen`.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **options}
    return RunningCommand(command_line(*arguments), **options)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The line that --json printed."""
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
