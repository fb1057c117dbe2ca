"""The connections of clients: how many there may be, and how long one may be silent."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

_MOST = 1024  # connections at the same time
_BACKLOG = 2048  # connections that the system holds until they are accepted; asyncio may accept them all at once
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # for an accepted connection
_LOG_EVERY_S = 1.0


def room_for_connections() -> tuple[int, int]:
    """How many connections there may be, and how many may wait to be accepted.

    They get five of eight descriptors of the process at most; files and engines get the others.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return _MOST, _BACKLOG
    return min(_MOST, descriptors // 2), min(_BACKLOG, descriptors // 8)


class Connection(H11Protocol):
    """A connection whose client must send each head within the `timeout_keep_alive` of uvicorn.

    If there are more than its `limit_concurrency`, the one that has been silent for the longest time is closed.
    """

    _silent_since_s: float | None = None  # when the server began to wait for a head; None while it answers
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._close_most_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """See uvicorn: bytes have come, or bytes that had come may be read now."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """Start the time of the next head if the server waits for one; stop it if there is a request to answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._silent_since_s = None
            self._stop_timer()
        elif self._silent_since_s is None and not self.transport.is_closing():
            self._silent_since_s = self.loop.time()
            self._timer = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_most_silent(self) -> None:
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        silent = [(each._silent_since_s, id(each), each) for each in others if each._silent_since_s is not None]
        if silent:
            most_silent = min(silent)[2]
            self.connections.discard(most_silent)
            most_silent.transport.abort()


class BoundedServer(uvicorn.Server):
    """A uvicorn server that does not fill the log when no descriptor is left for a connection."""

    _logged_s = float("-inf")

    async def startup(self, *args: Any, **options: Any) -> None:
        """See uvicorn."""
        asyncio.get_running_loop().set_exception_handler(self._handle)
        await super().startup(*args, **options)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_ROOM or "socket" not in context:
            loop.default_exception_handler(context)
            return
        now_s = time.monotonic()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            reason = error.strerror
            logger.error("a connection cannot be accepted: %s. Raise the limit of open files: ulimit -n", reason)
