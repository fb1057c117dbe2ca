"""Read a file in a child process with limits, because HDF5 can hang or crash on damaged bytes.

The child may use a few seconds of processor time from one sign of life to the next, and memory in proportion to the
file. The kernel ends it beyond that. Its death and its silence are results, like everything that it says.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import FacemillError, StorageError

CPU_SECONDS = 4  # of processor time between two signs of life; a block of 32 MiB takes a tenth of a second
_SILENT_SECONDS = 600  # a disk may be slow, or a network file system away for a while
_SPARE_BYTES = 4 << 30  # address space beyond what the started child has; libraries reserve much that they never use

# The child gets the import path of its parent: the package need not be installed.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import importlib; " + (
    "importlib.import_module(sys.argv[2]).main(*sys.argv[3:])"
)

Alive = Callable[..., None]  # a sign of life; its argument names the part of the file that is read next


def run_in_child(task: str, path: Path) -> Any:
    """Run a task of `main` on a file in a child process.

    Args:
        task: "verify", "read", "foreign" or "attributes".
        path: the file.
    Returns:
        What the task returned, through JSON.
    Raises:
        FacemillError: what the task raised; StorageError also if the child cannot be started.
        ValueError: the file is damaged, or HDF5 crashed or never ended; the text says at what.
    """
    command: list[str | bytes] = [sys.executable, "-c", _START, json.dumps(sys.path), __name__, task, os.fsencode(path)]
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
        )
    except OSError as err:
        raise StorageError(f"a process to read {path} cannot be started: {err.strerror}") from err
    with child:
        watch = _Watch(child)
        try:
            said = _listen(child, watch)
        finally:
            watch.stop()
            child.kill()
    if "result" in said:
        return said["result"]
    if "error" in said:
        raise getattr(errors, said["class"])(said["error"]) if said["class"] else ValueError(said["error"])
    if not said:
        raise StorageError(
            f"the process that reads {path} ended with exit code {child.returncode} before it began. Run "
            f"{sys.executable} to see whether Python starts there"
        )
    raise ValueError(_how_it_ended(child.returncode, said["at"], watch.was_silent))


class _Watch:
    """Ends a child that has been silent for too long."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.was_silent = False
        self._child, self._heard, self._stopped = child, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        self._heard = time.monotonic()

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            if time.monotonic() - self._heard > _SILENT_SECONDS:
                self.was_silent = True
                self._child.kill()
                return

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def _listen(child: subprocess.Popen[bytes], watch: _Watch) -> dict[str, Any]:
    """Read what a child says: its answer, or else the last part that it named, or nothing."""
    said: dict[str, Any] = {}
    assert child.stdout is not None
    for line in child.stdout:
        watch.heard()
        message: dict[str, Any] = json.loads(line)
        if "at" not in message:
            return message
        said = {"at": message["at"] or said["at"]}
    child.wait()
    return said


def _how_it_ended(code: int, at: str, silent: bool) -> str:
    """How a child ended without an answer."""
    where = f" at /{at}" if at else ""
    if silent:
        return f"reading it gave no sign of life for {_SILENT_SECONDS} s{where}"
    if code == -signal.SIGXCPU:
        return f"reading it would never end{where}: HDF5 goes round in circles in damaged bytes"
    if code < 0:
        return f"HDF5 crashed on damaged bytes{where} ({signal.Signals(-code).name})"
    return f"the process that read it ended with exit code {code}{where}"


def main(task: str, path: str) -> None:
    """Run a task in the child, and say what came of it on stdout, a line of JSON each."""
    from . import opening, salvage, verify

    said_at = time.monotonic()

    def alive(at: str = "") -> None:
        nonlocal said_at
        _renew_cpu_limit()
        if at or time.monotonic() - said_at > 1:
            said_at = time.monotonic()
            _say({"at": at})

    tasks: dict[str, Callable[[Path, Alive], Any]] = {
        "verify": verify.verify_here,
        "read": salvage.read_everything,
        "foreign": salvage.read_foreign,
        "attributes": opening.read_all_attributes,
    }
    file = Path(path)
    _limit(file)
    alive("metadata")
    try:
        _say({"result": tasks[task](file, alive)})
    except FacemillError as err:
        _say({"error": err.message, "class": type(err).__name__})
    except Exception as err:  # whatever the content of a file leads to is damage
        _say({"error": f"{type(err).__name__}: {err}", "class": ""})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _limit(path: Path) -> None:
    """Limit the memory of this process, leave no core file, and let signals end it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[0])
    _set_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + _SPARE_BYTES + 4 * _size_of(path))


def _size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _renew_cpu_limit() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS)


def _set_limit(what: int, soft: int) -> None:
    """Set a soft limit; the hard one, which nobody can raise again, stays."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
