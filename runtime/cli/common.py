"""Shared behaviour of all commands: error messages and logs on stderr."""

from __future__ import annotations

import _thread
import errno
import functools
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from ..errors import ConfigError, FacemillError, Interrupted, MachineError
from ..text import printable
from .start import let_commands_be_interrupted
from .streams import complaints

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE = __name__.split(".")[0]
_BUG = "error: this is a bug in facemill. Please report it with the command, the output of facemill doctor, and this:"


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print facemill's errors on stderr and exit with a code; only a bug shows a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if click.get_current_context(silent=True) is not None:
                let_commands_be_interrupted()
            with _keeping_interrupts():
                return command(*args, **kwargs)
        except Interrupted as err:
            _say(err.message)
            sys.exit(128 + err.signum)
        except FacemillError as err:
            _say(str(err))
            sys.exit(err.exit_code)
        except KeyboardInterrupt:
            _say("interrupted")
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(1)  # the reader has closed the pipe
        except ImportError as err:
            from ..extras import import_error

            logging.getLogger(_PACKAGE).debug("what could not be imported", exc_info=True)
            _say(str(import_error(err.name or "?", err)))
            sys.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as err:
            logging.getLogger(_PACKAGE).debug("where the machine refused", exc_info=True)
            _say(str(_machine_error(err)))
            sys.exit(1)
        except Exception:
            logging.getLogger(_PACKAGE).critical(_BUG, exc_info=True)
            sys.exit(1)

    return wrapped


@contextmanager
def _keeping_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt again that Python drops because it arrives in a finaliser or a weak reference."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()  # at once, it would be dropped again
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def print_summary(text: str, done: str) -> None:
    """Print what a command did, after all of its work.

    Args:
        text: the summary.
        done: the work as the message of an error names it, such as "people.h5 is written".
    Raises:
        MachineError: stdout cannot be written, or its reader went away; the message says that the work is done.
    """
    try:
        click.echo(text)
    except (MachineError, BrokenPipeError) as err:
        reason = (err.__cause__ if isinstance(err, MachineError) else err) or err
        raise MachineError(
            f"{done}, and nothing of it is left to do. Only the summary is lost: stdout cannot be written "
            f"({getattr(reason, 'strerror', None) or reason})"
        ) from err


def _machine_error(err: OSError) -> MachineError:
    """Name what the machine refused, and what to do."""
    if err.errno == errno.ENOENT:  # Python says this of a deleted working folder, and where no temporary folder is
        try:
            os.getcwd()
        except OSError as missing:
            return MachineError(f"the working folder was deleted ({missing.strerror}). Change to another one with cd")
        try:
            tempfile.gettempdir()
        except OSError as missing:
            return MachineError(f"{missing.strerror}. Set TMPDIR to a folder in which you can write")
    remedy = "Raise the limit: ulimit -n 4096" if err.errno == errno.EMFILE else "Fix that"
    names = ", ".join(map(str, filter(None, (err.filename, err.filename2))))
    return MachineError(
        f"{names + ': ' if names else ''}{err.strerror or err}. {remedy}, and run the same command again"
    )


def _say(text: str) -> None:
    """Print text to stderr, and log it to the log file, if one is set."""
    logging.getLogger(_PACKAGE).debug("%s", text)
    click.echo("\n".join(map(printable, text.splitlines())), err=True)


def _named_paths() -> Iterator[str]:
    """What the command line names besides the log file, some of which are paths. A list is named as `@list`."""
    context = click.get_current_context(silent=True)
    for name, values in ({} if context is None else context.params).items():
        for value in values if isinstance(values, tuple) else (values,):
            if name != "log_file" and isinstance(value, (str, os.PathLike)):
                yield os.fspath(value).removeprefix("@")


class _LogFile(logging.FileHandler):
    """A log file. When it cannot be written, stderr says so once, and the command goes on without it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """See `logging.Handler`."""
        logging.getLogger(_PACKAGE).removeHandler(self)
        reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
        click.echo(
            f"the log file {printable(self.baseFilename)} cannot be written ({reason}): the command goes on without it",
            err=True,
        )


class _Printable(logging.Formatter):
    """Escape control characters, so that file names in messages cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def setup_logging(*, log_file: Path | None = None, verbose: bool = False) -> None:
    """Send the package's log to stderr in short form, and with time stamps to a file.

    Args:
        log_file: appended to; None for no file.
        verbose: debug messages on stderr too.
    Raises:
        ConfigError: the log file cannot be written, is named by the command line for something else too, or holds
            something else than text.
    """
    logger = logging.getLogger(_PACKAGE)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    screen = logging.StreamHandler()
    screen.setLevel(logging.DEBUG if verbose else logging.INFO)
    screen.setFormatter(_Printable("%(message)s"))
    logger.addHandler(screen)
    if log_file is not None:
        from ..outputs import check_appended

        check_appended(log_file, _named_paths(), option="--log")
        try:
            file = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as err:
            raise ConfigError(
                f"the log file {log_file} cannot be written: {err.strerror}. Name a different one with --log"
            ) from err
        file.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
    for complaint in complaints():
        logger.warning("%s", complaint)


@contextmanager
def terminal() -> Iterator[dict[str, Any]]:
    """The `listener` and `control` of a job in a terminal: a live line, and signals that pause or stop the job."""
    from ..interrupt import SignalControl
    from ..progress import LiveLine

    with one_opencv_thread(), SignalControl() as control:
        yield {"listener": LiveLine(), "control": control}


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Turn OpenCV's own threads off.

    The process belongs to the command: every core has a thread that works on its own photos, and more threads inside
    each of them only wait for a core.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
