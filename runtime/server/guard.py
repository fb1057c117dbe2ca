"""Who may ask: the Host and Origin of a request, its token or session, and the rate of its client."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import secrets
import socket
import stat
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import AccessError, BusyError, ConfigError, RequestError
from ..regular import read_regular
from .problems import Refusal, problem_of

OPEN_ROUTES = frozenset({"/api/v1/health/live", "/api/v1/health/ready", "/docs", "/docs.css", "/openapi.json"})
LOGIN = "/login"  # the page that takes a token
ASSETS = "/static/"  # styles and scripts of pages, below this path
COOKIE = "facemill_session"
NOBODY = "-"  # who asks, if there are no tokens
SESSION_S = 12 * 3600  # seconds after which a browser must give its token again
_MIN_TOKEN = 16  # characters
_MAX_CLIENTS = 10_000  # whose rates are remembered
_MAX_BYTES = 1 << 20  # of a file of tokens
_MAX_SESSIONS = 1000  # browsers that are logged in


class Tokens:
    """The tokens of a file, by the names of their clients. Only their digests are kept."""

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        """Take the SHA-256 of each token, by the name of its client."""
        self._digests = dict(digests)

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read a file with a line `NAME TOKEN` for each client; empty lines and lines with `#` are left out.

        Raises:
            ConfigError: the file cannot be read, others can read it, a line is wrong, or there is no token.
        """
        try:
            mode = os.stat(path).st_mode
            lines = read_regular(path, _MAX_BYTES).decode("utf-8").splitlines()
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) else err
            raise ConfigError(f"--token-file is {path}, which cannot be read: {reason}") from err
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(f"all users of this machine can read or write {path}. Run: chmod o-rw {path}")
        digests: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or words[0] in digests or len(words[1]) < _MIN_TOKEN:
                raise ConfigError(
                    f"line {number} of {path} is wrong; expected: NAME TOKEN, each name once, and tokens of at least "
                    f"{_MIN_TOKEN} characters. Make one with: openssl rand -hex 32"
                )
            digests[words[0]] = _digest(words[1])
        if not digests:
            raise ConfigError(f"{path} has no token; expected: a line NAME TOKEN for each client")
        return cls(digests)

    def client_of(self, token: str) -> str | None:
        """The name of the client of a token; None for none. Takes as long for a wrong token as for a right one."""
        digest, name = _digest(token), None
        for client, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                name = client
        return name


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Access:
    """The tokens of clients, and the sessions of browsers that gave one. Sessions end with the server.

    Attributes:
        tokens: the tokens; None to let everybody in.
    """

    def __init__(self, tokens: Tokens | None) -> None:
        self.tokens = tokens
        self._sessions: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # client and end, by digest of the cookie

    def open_session(self, token: str) -> tuple[str, str] | None:
        """Start the session of a browser. Returns the name of its client and the value of its cookie; None for a wrong
        token."""
        client = None if self.tokens is None else self.tokens.client_of(token)
        if client is None:
            return None
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = client, time.monotonic() + SESSION_S
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return client, cookie

    def close_session(self, headers: Headers) -> None:
        """End the session that a request names."""
        self._sessions.pop(_digest(_cookie_in(headers)), None)

    def client_of(self, headers: Headers, method: str) -> str | None:
        """The name of the client of a request, by its token or its session; None for none.

        A browser sends its cookie by itself, so a session may change something only from a page of this server.
        """
        assert self.tokens is not None
        token = _token_in(headers)
        if token:
            return self.tokens.client_of(token)
        client, end_s = self._sessions.get(_digest(_cookie_in(headers)), (None, 0.0))
        if time.monotonic() >= end_s or (method not in ("GET", "HEAD") and "origin" not in headers):
            return None
        return client


class RateLimit:
    """Requests a second of each client, with a second's worth at once."""

    def __init__(self, rate: float) -> None:
        """Set the rate: requests a second; 0 for no limit."""
        self._rate = rate
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when

    def wait_s(self, client: str, now_s: float) -> float:
        """Count a request. Returns the seconds after which it may come again; 0 if it may go on."""
        if not self._rate:
            return 0.0
        most = max(1.0, self._rate)
        left, then_s = self._clients.pop(client, (most, now_s))
        left = min(most, left + (now_s - then_s) * self._rate)
        allowed = left >= 1
        self._clients[client] = (left - allowed, now_s)
        while len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate


class Guard:
    """Refuses requests before they reach a route. `scope["facemill.client"]` is the name of the client."""

    def __init__(self, app: ASGIApp, *, access: Access, names: tuple[str, ...], rate: float) -> None:
        """Protect an application.

        Args:
            app: the application.
            access: tokens and sessions.
            names: host names of this server; addresses and `localhost` need no name.
            rate: requests a second of a client; 0 for no limit.
        """
        self._app, self._access, self._rate = app, access, RateLimit(rate)
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope["facemill.client"] = NOBODY
        try:
            self._check(scope)
        except (Refusal, AccessError) as err:
            if isinstance(err, Refusal) and err.status == 401 and _wants_page(scope):
                response = RedirectResponse(f"{LOGIN}?next={quote(scope['path'])}", 303)
                return await response(scope, receive, send)
            return await problem_of(err)(scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Let a request pass.

        Raises:
            Refusal, AccessError: it may not pass.
        """
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may have read another body
            reason = "the request has Content-Length and Transfer-Encoding; expected: one of them"
            raise Refusal(400, RequestError(reason), {"Connection": "close"})
        self._check_host(headers)
        if is_open(scope["path"]):
            return
        if self._access.tokens is not None:
            client = self._access.client_of(headers, scope["method"])
            if client is None:
                reason = "the request has no valid token; expected: Authorization: Bearer TOKEN, or x-api-key: TOKEN"
                raise Refusal(401, AccessError(reason), {"WWW-Authenticate": "Bearer"})
            scope["facemill.client"] = client
        address = (scope.get("client") or ("",))[0]
        wait_s = self._rate.wait_s(scope["facemill.client"] if self._access.tokens else address, time.monotonic())
        if wait_s:
            reason = "the client sends more requests than --rate allows. Send them more slowly"
            raise Refusal(429, BusyError(reason), {"Retry-After": str(math.ceil(wait_s))})

    def _check_host(self, headers: Headers) -> None:
        """Refuse a name that a stranger made point here (DNS rebinding), and requests of pages of other origins."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise Refusal(400, RequestError(f"the request has {len(hosts)} Host headers; expected: one"))
        host = hosts[0].lower()
        name = _host_name(host)
        if name not in self._names and not _is_address(name):
            reason = f"the request is for the host {name!r:.100}; expected: an address, localhost, or a --name"
            raise AccessError(f"{reason}. Start the server with --name for the name of a reverse proxy")
        origin = headers.get("origin")
        if origin is not None and _origin_host(origin) != host:
            raise AccessError(f"the request comes from a page of {origin!r:.100}; expected: a page of this server")
        if origin is None and headers.get("sec-fetch-site") == "cross-site":
            raise AccessError("the request comes from a page of another site; expected: a page of this server")


def is_open(path: str) -> bool:
    """Whether a route needs no token."""
    return path in OPEN_ROUTES or path == LOGIN or path.startswith(ASSETS)


def _wants_page(scope: Scope) -> bool:
    """Whether a browser asks for a page, and not a program or a script for data."""
    return scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")


def _origin_host(origin: str) -> str:
    """The host and port of an Origin; empty for `null` and for what is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """The name or address in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _token_in(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _cookie_in(headers: Headers) -> str:
    return str(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
