"""Run one process per device. Each embeds its part of the run into its own segments.

The processes are spawned, not forked, because CUDA does not survive a fork. They die with the main process.
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
from ..cuda.device import visible_devices_for
from ..errors import EngineError, FacemillError, Interrupted
from ..sources.pathtable import PathTable
from ..sources.source import Source
from .settings import cores_of
from .worker import Clocks, RunContext, Task, embed_task

_BLOCK_ROWS = 4096
_PR_SET_PDEATHSIG = 1


def divide(rows: NDArray[np.int64], processes: int) -> list[NDArray[np.int64]]:
    """Deal blocks of rows to the processes in turns, so that all of them finish at about the same time."""
    block = min(_BLOCK_ROWS, -(-len(rows) // processes)) or 1
    owner = np.arange(len(rows)) // block % processes
    return [rows[owner == number] for number in range(processes)]


@dataclass(frozen=True, slots=True)
class _Signals:
    """Events by which the main process stops and pauses all others."""

    stop: Any
    resumed: Any


def embed_on_devices(task: Task, rows: NDArray[np.int64], context: RunContext) -> tuple[float, int]:
    """Embed rows in one process per device of the request.

    Args:
        task: the whole work, which is divided here.
        rows: (n,) int64, ascending.
        context: its clocks sum the work of all processes. Each process opens the names again.
    Returns:
        The earliest start after warm-up (time.perf_counter), and the number of finished rows.
    Raises:
        FacemillError: the error of the first process that failed. The others finish their batches in flight.
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
        work = _ProcessTask(replace(task, process=number), source, names.path, device, cores_of(number, devices))
        process = spawn.Process(target=_work, args=(work, part, sender, signals), name=f"facemill-{device}-{number}")
        process.start()
        sender.close()
        workers[receiver] = process
    start_s, done, failure = 0.0, 0, None
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
                elif "start_s" in message:
                    start_s = min(start_s or message["start_s"], message["start_s"])
                elif "error" in message:
                    failure = failure or _error(message)
                else:
                    counts = Counter(message["counts"])
                    done += counts.total()
                    for name, stage_work in message["work"].items():
                        context.clocks[name].add(*stage_work)
                    context.advance(counts.total(), counts)
                if failure is not None:
                    signals.stop.set()
    finally:
        signals.stop.set()
        for connection, process in workers.items():
            connection.close()  # else a process that is still sending would block for ever
            process.join()
    if failure is not None:
        raise failure
    return start_s, done


def _receive(connection: Connection) -> dict[str, Any] | None:
    """Read a message of a process; None when the process has ended."""
    try:
        message: dict[str, Any] = json.loads(connection.recv_bytes())
    except (EOFError, ConnectionError):
        return None
    return message


def _send(connection: Connection, **message: Any) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _error(message: dict[str, Any]) -> FacemillError:
    """Rebuild the error that was raised in another process."""
    kind = getattr(errors, message["error"])
    assert issubclass(kind, FacemillError)
    error: FacemillError = kind(message["text"])
    return error


def _silent_death(process: Any) -> FacemillError | None:
    """The error of a process that ended without a message and with an exit code other than 0."""
    if process.exitcode == 0:
        return None
    return EngineError(
        f"the process {process.name} ended with exit code {process.exitcode}. Finished photos are kept: run the same "
        f"command again to resume"
    )


class _RemoteControl:
    """The control of the main process, for use in another process."""

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


class _RemoteProgress:
    """Sends the counts of finished photos, and the time of each stage, to the main process."""

    def __init__(self, connection: Connection, clocks: Clocks) -> None:
        self._connection = connection
        self._clocks = clocks
        self._sent = dict.fromkeys(clocks, (0.0, 0))

    def advance(self, photos: int, counts: Mapping[str, int]) -> None:
        if not photos:
            return
        work = {}
        for name, clock in self._clocks.items():
            busy_s, sent_photos = self._sent[name]
            self._sent[name] = clock.busy_s, clock.photos
            work[name] = clock.busy_s - busy_s, clock.photos - sent_photos
        _send(self._connection, counts=counts, work=work)


@dataclass(frozen=True, slots=True)
class _ProcessTask:
    """The work of another process.

    Attributes:
        task: the task, with the number of the process.
        source: the photos, without their names.
        names: the file of the names.
        device: "cpu", or the number of a GPU.
        cores: the cores that the process may use, on the CPU.
    """

    task: Task
    source: Source
    names: Path
    device: str
    cores: set[int]


def _work(work: _ProcessTask, rows: NDArray[np.int64], connection: Connection, signals: _Signals) -> None:
    """Main function of a process. It belongs to facemill, so it may set affinity, signals and environment."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # the main process handles them and sets the events
    if work.device == "cpu":
        os.sched_setaffinity(0, work.cores)
    else:  # CUDA reads it when it starts, which happens later in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices_for(work.device)
    import cv2

    cv2.setNumThreads(1)  # each thread of the pipeline works on photos of its own
    clocks = work.task.clocks()
    try:
        with PathTable(work.names) as names:
            advance = _RemoteProgress(connection, clocks).advance
            source = work.source.with_names(names)
            context = RunContext(source, _RemoteControl(signals), clocks=clocks, advance=advance)
            start_s, _ = embed_task(work.task, rows, context)
            _send(connection, start_s=start_s)
    except Interrupted:
        pass  # stopped before the first photo, or in a pause
    except FacemillError as err:
        _send(connection, error=type(err).__name__, text=err.message)
