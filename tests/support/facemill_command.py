"""Run the command `facemill` in this process, as most tests do, or in its own process."""

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
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def facemill(
    *arguments: object, cwd: Path = ROOT, stdin: str | bytes | None = None, **environment: object
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, and restore the state of the process.

    Args:
        arguments: the command and its arguments.
        cwd: the folder to run in.
        stdin: what the command reads.
        environment: variables to add to those of this process.
    Returns:
        A result like that of `subprocess.run`, so that tests read both kinds of runs in the same way.
    """
    command = ["facemill", *map(str, arguments)]
    variables = {name: str(value) for name, value in environment.items()}
    with _process_state(cwd):
        result = CliRunner(env=variables).invoke(
            main, command[1:], input=stdin, prog_name="facemill", catch_exceptions=False
        )
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)


@contextmanager
def _process_state(cwd: Path) -> Iterator[None]:
    """Change to a folder; afterwards restore folder, environment, signal handlers and the package's log."""
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
    """Run a command in its own process, to test limits, users, encodings, closed streams and memory.

    Args:
        arguments: the command and its arguments.
        options: options of `subprocess.run`.
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
    """Start a command in its own process and return at once, to test signals, kills and parallel runs.

    Args:
        arguments: the command and its arguments.
        options: options of `subprocess.Popen`.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **options}
    return RunningCommand(command_line(*arguments), **options)


def summary(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Parse the line that --json printed."""
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer
