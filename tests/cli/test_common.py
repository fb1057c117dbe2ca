"""Behaviour that all commands share: exit codes, error messages, the log file."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import pytest
from click.testing import CliRunner

from runtime import __version__
from runtime.cli.common import handle_errors, setup_logging, terminal
from runtime.errors import ConfigError, FacemillError, Interrupted, LockedError, SourceError
from tests.support.errors import USAGE, assert_refused
from tests.support.facemill_command import ROOT, facemill


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    """Remove the handlers of the logger after each test."""
    yield
    logger = logging.getLogger("runtime")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def run_raising(error: BaseException, log_file: Path | None = None) -> tuple[int, str]:
    """Run a command that raises this error; returns its exit code and stderr."""

    @click.command()
    @handle_errors
    def command() -> None:
        setup_logging(log_file=log_file)
        raise error

    result = CliRunner().invoke(command)
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("size is 0"), 1, "E-CONFIG: size is 0\n"),
        (SourceError("no folder"), 1, "E-SOURCE: no folder\n"),
        (LockedError("busy"), 1, "E-LOCKED: busy\n"),
        (FacemillError("one\ntwo \x1b[31m"), 1, "E-FAILED: one\ntwo \\x1b[31m\n"),
        (Interrupted("stopped", signal.SIGTERM), 143, "stopped\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 1, ""),
        (click.UsageError("no such thing"), 2, "Usage: command"),
        (click.exceptions.Exit(7), 7, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_becomes_a_message_and_an_exit_code(error: BaseException, code: int, message: str) -> None:
    actual_code, stderr = run_raising(error)
    assert actual_code == code
    assert stderr.startswith(message)
    assert "Traceback" not in stderr


def test_an_unexpected_error_is_reported_as_a_bug_with_its_traceback(tmp_path: Path) -> None:
    code, stderr = run_raising(KeyError("nobody expected this"), tmp_path / "log.txt")
    assert code == 1
    for text in (stderr, (tmp_path / "log.txt").read_text()):
        assert "this is a bug in facemill" in text
        assert "KeyError: 'nobody expected this'" in text


def test_log_lines_have_time_stamps_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    for word in ("first", "second"):
        setup_logging(log_file=path)
        logging.getLogger("runtime.x").info("%s \x1b[2J", word)
    lines = path.read_text().splitlines()
    assert [line.split(" INFO ")[1] for line in lines] == ["first \\x1b[2J", "second \\x1b[2J"]
    assert all(line[:4].isdigit() for line in lines)


def test_errors_are_written_to_the_log_file(tmp_path: Path) -> None:
    run_raising(ConfigError("size is 0"), tmp_path / "log.txt")
    assert "E-CONFIG: size is 0" in (tmp_path / "log.txt").read_text()


def test_debug_messages_need_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        setup_logging(verbose=verbose)
        logging.getLogger("runtime.x").debug("detail %s", verbose)
    assert capsys.readouterr().err == "detail True\n"


def test_a_log_file_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    result = facemill("process", tmp_path, "--log", tmp_path / "gone" / "x.log", "--model", "random-128")
    assert_refused(result, "E-CONFIG", tmp_path / "gone" / "x.log", "--log")


def test_version_and_unknown_command() -> None:
    assert facemill("--version").stdout.strip() == f"facemill, version {__version__}"
    result = facemill("proces")
    assert_refused(result, USAGE, "proces")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; sys.argv = ['facemill', '--help']\n"
        "from runtime.cli.app import main\n"
        "main(standalone_mode=False)\n"
        "print(sorted(name for name in sys.modules if name.startswith('runtime.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    needed = ["cli", "cli.app", "cli.common", "cli.limits", "cli.start", "cli.streams", "cli.stuck", "errors", "text"]
    assert result.stdout.splitlines()[-1] == str([f"runtime.{name}" for name in needed]), result.stderr
    for name in ("build-engine", "process", "search", "models", "doctor"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.slow
def test_a_closed_pipe_gives_no_traceback() -> None:
    command = f"{sys.executable} -m runtime.cli.app models list --json | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_opencv_threads_are_off_during_a_command_and_restored_after() -> None:
    thread_count = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with terminal():
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(thread_count)


def test_a_mistyped_command_gets_the_similar_one() -> None:
    from runtime.cli.app import main

    result = CliRunner().invoke(main, ["proces"])
    assert (result.exit_code, "'process'" in result.output) == (2, True)
    assert "Did you mean" not in CliRunner().invoke(main, ["qqqqqq"]).output


INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["facemill", "models", "list"]
from runtime.cli.start import main
main()
"""


@pytest.mark.parametrize(
    ("module", "errors"),
    [
        ("runtime.cli.app", ""),
        ("click", ""),
        ("runtime.cli.streams", ""),
        ("runtime.cli.models", ""),
        ("runtime.modelspec", "interrupted\n"),  # the command has begun
    ],
)
def test_ctrl_c_during_the_imports_ends_in_silence(module: str, errors: str) -> None:
    code = INTERRUPTED_IMPORT.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", errors)


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + INTERRUPTED_IMPORT.format(module="click")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0
    assert "facemill-512" in done.stdout
