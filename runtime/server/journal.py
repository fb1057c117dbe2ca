"""What a server tells about itself: figures for Prometheus, and who asked for what and when.

Neither holds a picture, a vector, the name of a photo, or a query: only routes, names of files, and times.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigError
from ..files import create_empty
from ..outputs import check_appended
from .engine_room import EngineRoom
from .guard import LOGIN, is_open

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with `no-referrer` browsers do not say the origin of a form
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Metrics:
    """The figures of one server.

    Attributes:
        registry: all of them.
    """

    def __init__(self, room: EngineRoom) -> None:
        """Count requests, and show the state of an engine room."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "facemill_requests", "Requests that were answered.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "facemill_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        for name, text in (
            ("waiting", "Requests that wait for an engine."),
            ("working", "Engine calls that run."),
            ("calls", "Engine calls since the start."),
            ("photos", "Photos answered since the start."),
            ("dropped", "Requests that left the queue because nobody waited any more."),
        ):
            gauge = Gauge(f"facemill_engine_{name}", text, registry=self.registry)
            gauge.set_function(partial(getattr, room.state, name))

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures in the format of Prometheus."""
        return generate_latest(self.registry)


class AuditLog:
    """Writes a line of JSON for each request: who, from where, what, which file, with which result, when."""

    def __init__(self, path: Path | None, others: Iterable[Path] = ()) -> None:
        """Append to a file that only this user can read, or to the log of the process.

        Args:
            path: the file; None for the log of the process.
            others: the files that the server reads or writes.
        Raises:
            ConfigError: the file cannot be written, is one of the others, or holds something else than text.
        """
        self._logger = logging.getLogger(f"{__name__}.audit.{id(self)}" if path else f"{__name__}.audit")
        self._handler: logging.Handler | None = None
        if path is not None:
            check_appended(path, others, option="--audit")
            try:
                if not path.exists():
                    create_empty(path)
                self._handler = logging.FileHandler(path, encoding="utf-8")
            except OSError as err:
                raise ConfigError(f"--audit is {path}, which cannot be written: {err.strerror}") from err
            self._logger.propagate = False
            self._logger.setLevel(logging.INFO)
            self._logger.addHandler(self._handler)

    def write(self, **facts: Any) -> None:
        """Write the facts of a request."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._logger.info("%s", json.dumps({"time": now, **facts}))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._handler.close()


class Journal:
    """Counts and records every request, and adds the headers that every answer has, unless its route sets them."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, audit: AuditLog) -> None:
        """Wrap an application, with its guard."""
        self._app, self._metrics, self._audit = app, metrics, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start_s, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                message = {**message, "headers": [*headers, *(pair for pair in _HEADERS if pair[0] not in own)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count(route, status, time.perf_counter() - start_s)
            if not is_open(scope["path"]) or (scope["path"] == LOGIN and scope["method"] == "POST"):
                self._audit.write(
                    client=scope.get("facemill.client", "-"),
                    address=(scope.get("client") or ("",))[0],
                    method=scope["method"],
                    route=route,
                    file=scope.get("facemill.file"),
                    status=status,
                )
