"""The event log of a job: lines of JSON with increasing numbers, of limited length, which readers follow.

The process of the job alone writes it. A line that a crash cut short is dropped by the next process. When the log is
long, it becomes the old log, and the old log before it goes: the numbers go on.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

MAX_BYTES = 512 << 10  # of each of the two logs: 15 minutes of progress at least
_LOG, _OLD = "events.jsonl", "events.old.jsonl"
_TAIL_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job.

    Attributes:
        id: its number, from 1 on.
        kind: "started", "phase", "progress", "step" or "ended".
        facts: what happened, for JSON, with the time.
    """

    id: int
    kind: str
    facts: dict[str, Any]


class EventLog:
    """Appends to the log of a job. Several threads may append. Owned by `with`.

    A log that cannot be written does not stop the job: the embedding file is what counts.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Open the log, and drop a last line that was cut short.

        Args:
            folder: the folder of the job.
            max_bytes: length at which the log becomes the old log.
        Raises:
            OSError: the log cannot be opened.
        """
        self._path, self._old, self._max_bytes = folder / _LOG, folder / _OLD, max_bytes
        self._lock = threading.Lock()
        self._last = last_event_id(folder)
        self._fd = self._open()
        data = self._path.read_bytes()
        os.ftruncate(self._fd, data.rfind(b"\n") + 1)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def append(self, kind: str, *, durable: bool = False, **facts: Any) -> None:
        """Append an event.

        Args:
            kind: see `Event`.
            durable: whether the event has to survive a power cut.
            facts: see `Event`.
        """
        with self._lock, suppress(OSError):
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            line = {"id": self._last + 1, "event": kind, "time": now, **facts}
            if os.fstat(self._fd).st_size >= self._max_bytes:
                os.replace(self._path, self._old)
                os.close(self._fd)
                self._fd = self._open()
            size = os.fstat(self._fd).st_size
            data = json.dumps(line).encode() + b"\n"
            try:
                written = os.write(self._fd, data)
            except OSError:
                written = -1
            if written != len(data):  # the disk is full: half a line would join the next one
                os.ftruncate(self._fd, size)
                return
            self._last += 1
            if durable:
                os.fsync(self._fd)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


class EventReader:
    """Follows the log of a job from an event on: each later event once, in order. It keeps no file open."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        """Begin after an event.

        Args:
            folder: the folder of the job.
            after: number of the last known event; 0 for none. A number that the log does not have yet, because a power
                cut took its events, counts as none.
        """
        self._path, self._old = folder / _LOG, folder / _OLD
        self._last = after if after <= last_event_id(folder) else 0
        self._inode, self._offset = -1, 0  # of the log, and of what was read of it

    def read(self) -> list[Event]:
        """Return the events since the last call, or since the beginning.

        Raises:
            OSError: the log cannot be read.
        """
        try:
            with open(self._path, "rb") as log:
                status = os.fstat(log.fileno())
                if status.st_ino == self._inode and status.st_size <= self._offset:
                    return []
                events: dict[int, Event] = {}
                if status.st_ino != self._inode:  # opened before the old log, so that nothing moves past both
                    with suppress(FileNotFoundError):
                        events.update(_events_in(self._old.read_bytes()))
                    self._inode, self._offset = status.st_ino, 0
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return []  # not yet there, or between two names
        whole = data[: data.rfind(b"\n") + 1]  # the writer takes half a line back
        self._offset += len(whole)
        events.update(_events_in(whole))
        fresh = [events[number] for number in sorted(events) if number > self._last]
        if fresh:
            self._last = fresh[-1].id
        return fresh


def last_event_id(folder: Path) -> int:
    """The number of the last event of a job; 0 for none."""
    return max(_last_of(folder), default=0)


def last_progress(folder: Path) -> dict[str, Any] | None:
    """The facts of the last progress of a job; None for none."""
    events = _last_of(folder)
    numbers = [number for number, event in events.items() if event.kind == "progress"]
    return events[max(numbers)].facts if numbers else None


def _last_of(folder: Path) -> dict[int, Event]:
    """The last events of a job, without the beginning of long logs."""
    events: dict[int, Event] = {}
    for name in (_OLD, _LOG):
        with suppress(FileNotFoundError), open(folder / name, "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
            file.seek(start)
            data = file.read()
            events.update(_events_in(data.partition(b"\n")[2] if start else data))
    return events


def _events_in(data: bytes) -> dict[int, Event]:
    """The events in whole lines, by number. A damaged line is left out."""
    events = {}
    for line in data.split(b"\n")[:-1]:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            facts = json.loads(line)
            event = Event(int(facts.pop("id")), str(facts.pop("event")), facts)
            events[event.id] = event
    return events
