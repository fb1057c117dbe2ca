"""The events of a job as server-sent events (HTML standard, section 9.2), from any event on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from ...jobs.events import Event, EventReader
from ...jobs.job import Job, JobState

_LOOK_EVERY_S = 0.5
_HEARTBEAT_S = 15.0  # a proxy closes a connection that is silent for a minute
_RETRY_MS = 2000  # after which a browser connects again
_FINAL = ("finished", "cancelled")


async def stream(job: Job, after: int, is_ending: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield the events of a job after an event, and its state whenever that changes, until it is over.

    Events have ids, by which a client goes on after a break. States have none: they are looked up, so that they are
    true also after `kill -9`.
    """
    state: JobState | None = None
    spoken = time.monotonic()
    yield f"retry: {_RETRY_MS}\n\n".encode()
    reader = EventReader(job.path, after)
    while not is_ending():
        # The state first: what led to it is among the events by then, and goes out before it.
        now, events = await asyncio.to_thread(lambda: (job.state(), reader.read()))
        text = "".join(map(_event, events))
        if now != state:
            state = now
            text += f"event: state\ndata: {json.dumps(now.to_dict())}\n\n"
        if not text and time.monotonic() - spoken >= _HEARTBEAT_S:
            text = ": alive\n\n"
        if text:
            spoken = time.monotonic()
            yield text.encode()
        if now.name in _FINAL:
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def is_over(job: Job, after: int) -> bool:
    """Whether no event follows, so that a client need not connect again."""
    if job.state().name not in _FINAL:
        return False
    return not EventReader(job.path, after).read()


def _event(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.facts)}\n\n"
