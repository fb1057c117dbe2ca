"""One process a device: each embeds its share of the run into segments of its own.

The processes are spawned, not forked (CUDA does not survive a fork), and die with the one that started them.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..cuda.visible import shown_as
from ..errors import EngineError, FacemillError, Interrupted
from ..interrupt import Control
from ..progress import Reporter
from ..sources.pathtable import PathTable
from .stages import StageClock
from .worker import Share, embed_share

_BLOCK_ROWS = 4096
_PR_SET_PDEATHSIG = 1


def divide(rows: NDArray[np.int64], shares: int) -> list[NDArray[np.int64]]:
    """Rows for each process, in turns of a block: all of them come to the end at about the same time."""
    block = min(_BLOCK_ROWS, -(-len(rows) // shares)) or 1
    owner = np.arange(len(rows)) // block % shares
    return [rows[owner == number] for number in range(shares)]


def cores_of(number: int, devices: Sequence[str]) -> set[int]:
    """The cores of one process: an even part of those that this one may use, at least one."""
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[number :: len(devices)]
    return set(mine or cores)


@contextmanager
def cores_of_one(devices: Sequence[str]) -> Iterator[None]:
    """Hold this thread, and those that it starts, to the cores of one of the processes to come: tuning is for one."""
    before = os.sched_getaffinity(0)
    try:
        if "cpu" in devices:
            os.sched_setaffinity(0, cores_of(0, devices))
        yield
    finally:
        os.sched_setaffinity(0, before)


def embed_on_devices(
    share: Share,
    rows: NDArray[np.int64],
    paths: PathTable,
    control: Control,
    reporter: Reporter,
    clocks: list[StageClock],
) -> tuple[float, int]:
    """Embed rows in one process a device of the request.

    Args:
        share: the whole, divided here.
        rows: (n,) int64, ascending.
        paths: their file is opened by each process again.
        control: signals stop and pause all of them.
        reporter: counts the images of all processes.
        clocks: of `share.clocks()`; the work of all processes is added up in them.
    Returns:
        When the first one began after warm-up, and how many rows were done.
    Raises:
        FacemillError: that of the first process that failed; the others finish what they have in flight.
    """
    context = multiprocessing.get_context("spawn")
    devices = share.request.devices
    stop, going = context.Event(), context.Event()
    going.set()
    parts = divide(rows, len(devices))
    workers: dict[Connection, Any] = {}
    for number, device in enumerate(devices):
        mine, theirs = context.Pipe(duplex=False)
        part = replace(share, number=number)
        arguments = (part, parts[number], paths.path, device, cores_of(number, devices), theirs, stop, going)
        process = context.Process(target=_work, args=arguments, name=f"facemill-{device}-{number}")
        process.start()
        theirs.close()
        workers[mine] = process
    began, done, failure = 0.0, 0, None
    for clock in clocks:
        clock.workers *= len(devices)
    try:
        while workers:
            if control.signum:
                stop.set()
            (going.clear if control.paused and not control.signum else going.set)()
            reporter.advance()
            for connection in wait(list(workers), timeout=0.5):
                assert isinstance(connection, Connection)
                message = _receive(connection)
                if message is None:
                    process = workers.pop(connection)
                    process.join()
                    failure = failure or _silent_death(process)
                elif "began" in message:
                    began = min(began or message["began"], message["began"])
                elif "error" in message:
                    failure = failure or _error(message)
                else:
                    counts = Counter(message["counts"])
                    done += counts.total()
                    for clock in clocks:
                        clock.add(*message["work"][clock.name])
                    reporter.advance(counts.total(), counts)
                if failure is not None:
                    stop.set()
    finally:
        stop.set()
        for connection, process in workers.items():
            connection.close()  # a process that is still telling would wait for ever for someone to listen
            process.join()
    if failure is not None:
        raise failure
    return began, done


def _receive(connection: Connection) -> dict[str, Any] | None:
    """What a process says; None when it has ended."""
    try:
        message: dict[str, Any] = json.loads(connection.recv_bytes())
    except (EOFError, ConnectionError):
        return None
    return message


def _send(connection: Connection, **message: Any) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _error(message: dict[str, Any]) -> FacemillError:
    """The error that another process met, as it was there."""
    kind = getattr(errors, message["error"])
    assert issubclass(kind, FacemillError)
    error: FacemillError = kind(message["text"])
    return error


def _silent_death(process: Any) -> FacemillError | None:
    """An error for a process that ended without a word and not well."""
    if process.exitcode == 0:
        return None
    return EngineError(
        f"the process {process.name} ended with {process.exitcode}. What is complete stays: run the same command again"
    )


class _Orders:
    """What the main process wants, seen from another one."""

    def __init__(self, stop: Any, going: Any) -> None:
        self._stop = stop
        self._going = going

    def wait_while_paused(self) -> bool:
        while not self._stop.is_set() and not self._going.wait(timeout=0.5):
            pass
        return not self._stop.is_set()

    def stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", signal.SIGTERM)


class _Report:
    """Sends what is finished to the main process, with the work that it took."""

    def __init__(self, connection: Connection, clocks: list[StageClock]) -> None:
        self._connection = connection
        self._clocks = clocks
        self._told = {clock.name: (0.0, 0) for clock in clocks}

    def advance(self, units: int = 0, counts: Mapping[str, int] | None = None) -> None:
        if not units:
            return
        work = {}
        for clock in self._clocks:
            busy, photographs = self._told[clock.name]
            self._told[clock.name] = clock.busy_s, clock.photographs
            work[clock.name] = clock.busy_s - busy, clock.photographs - photographs
        _send(self._connection, counts=counts, work=work)


def _work(
    share: Share,
    rows: NDArray[np.int64],
    paths: Any,
    device: str,
    cores: set[int],
    connection: Connection,
    stop: Any,
    going: Any,
) -> None:
    """The whole life of one process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # the main process hears them and passes on what they mean
    if device == "cpu":
        os.sched_setaffinity(0, cores)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = shown_as(device)
    clocks = share.clocks()
    try:
        with PathTable(paths) as table:
            report = _Report(connection, clocks)
            began, _ = embed_share(share, rows, table, _Orders(stop, going), report, clocks)
            _send(connection, began=began)
    except Interrupted:
        pass  # it was told to stop before it had begun
    except FacemillError as err:
        _send(connection, error=type(err).__name__, text=err.message)
