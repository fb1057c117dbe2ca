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
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..cuda.device import shown_as
from ..errors import EngineError, FacemillError, Interrupted
from ..sources.pathtable import PathTable
from ..sources.source import Source
from .settings import cores_of
from .worker import Clocks, RunContext, Task, embed_task

_BLOCK_ROWS = 4096
_PR_SET_PDEATHSIG = 1


def divide(rows: NDArray[np.int64], shares: int) -> list[NDArray[np.int64]]:
    """Rows for each process, in turns of a block: all of them come to the end at about the same time."""
    block = min(_BLOCK_ROWS, -(-len(rows) // shares)) or 1
    owner = np.arange(len(rows)) // block % shares
    return [rows[owner == number] for number in range(shares)]


@dataclass(frozen=True, slots=True)
class _Signals:
    """What the main process tells all others: events that they share."""

    stop: Any
    resumed: Any


def embed_on_devices(task: Task, rows: NDArray[np.int64], context: RunContext) -> tuple[float, int]:
    """Embed rows in one process a device of the request; arguments and result are as for `worker.embed_task`.

    Args:
        task: the whole, divided here.
        rows: (n,) int64, ascending.
        context: its clocks get the work of all processes added up, its names are read by each process again.
    Raises:
        FacemillError: that of the first process that failed; the others finish what they have in flight.
    """
    spawn = multiprocessing.get_context("spawn")
    devices, control = task.request.run.devices, context.control
    signals = _Signals(spawn.Event(), spawn.Event())
    signals.resumed.set()
    names = context.source.names
    assert isinstance(names, PathTable)
    source = context.source.with_names(())
    workers: dict[Connection, Any] = {}
    for number, (device, part) in enumerate(zip(devices, divide(rows, len(devices)), strict=True)):
        receiver, sender = spawn.Pipe(duplex=False)
        place = _Place(replace(task, process=number), source, names.path, device, cores_of(number, devices))
        process = spawn.Process(target=_work, args=(place, part, sender, signals), name=f"facemill-{device}-{number}")
        process.start()
        sender.close()
        workers[receiver] = process
    began, done, failure = 0.0, 0, None
    for clock in context.clocks.values():
        clock.workers *= len(devices)
    try:
        while workers:
            if control.stopping:
                signals.stop.set()
            (signals.resumed.clear if control.paused and not control.stopping else signals.resumed.set)()
            context.advance(0, {})
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
                    for name, work in message["work"].items():
                        context.clocks[name].add(*work)
                    context.advance(counts.total(), counts)
                if failure is not None:
                    signals.stop.set()
    finally:
        signals.stop.set()
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


class _FromMain:
    """The control of the main process, seen from another one."""

    signum = 0

    def __init__(self, signals: _Signals) -> None:
        self._signals = signals

    @property
    def paused(self) -> bool:
        return not self._signals.resumed.is_set()

    @property
    def stopping(self) -> bool:
        return bool(self._signals.stop.is_set())

    def wait(self) -> bool:
        while not self.stopping and not self._signals.resumed.wait(timeout=0.5):
            pass
        return not self.stopping

    def in_flight(self) -> AbstractContextManager[None]:
        return nullcontext()


class _ToMain:
    """Sends the counts of finished photos to the main process, with the work that they took."""

    def __init__(self, connection: Connection, clocks: Clocks) -> None:
        self._connection = connection
        self._clocks = clocks
        self._sent = dict.fromkeys(clocks, (0.0, 0))

    def advance(self, photos: int, counts: Mapping[str, int]) -> None:
        if not photos:
            return
        work = {}
        for name, clock in self._clocks.items():
            busy_s, photographs = self._sent[name]
            self._sent[name] = clock.busy_s, clock.photographs
            work[name] = clock.busy_s - busy_s, clock.photographs - photographs
        _send(self._connection, counts=counts, work=work)


@dataclass(frozen=True, slots=True)
class _Place:
    """What another process needs to know.

    Attributes:
        task: its own.
        source: of the photos, without names.
        names: the file of the names.
        device: "cpu", or the number of a GPU.
        cores: that it keeps to on the CPU.
    """

    task: Task
    source: Source
    names: Path
    device: str
    cores: set[int]


def _work(place: _Place, rows: NDArray[np.int64], connection: Connection, signals: _Signals) -> None:
    """The whole life of one process, which is facemill's own: it may have what a caller's process may not."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # the main process hears them and passes on what they mean
    if place.device == "cpu":
        os.sched_setaffinity(0, place.cores)
    else:  # CUDA reads it when it starts, in this process after this line
        os.environ["CUDA_VISIBLE_DEVICES"] = shown_as(place.device)
    clocks = place.task.clocks()
    try:
        with PathTable(place.names) as names:
            advance = _ToMain(connection, clocks).advance
            source = place.source.with_names(names)
            context = RunContext(source, _FromMain(signals), clocks=clocks, advance=advance)
            began, _ = embed_task(place.task, rows, context)
            _send(connection, began=began)
    except Interrupted:
        pass  # it was told to stop before it had begun
    except FacemillError as err:
        _send(connection, error=type(err).__name__, text=err.message)
