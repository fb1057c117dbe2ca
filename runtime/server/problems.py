"""One form for every error of the server: problem details (RFC 9457) with facemill's codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ..errors import (
    AccessError,
    BusyError,
    ConfigError,
    ContractError,
    EngineError,
    FacemillError,
    Interrupted,
    LockedError,
    MachineError,
    MissingDependencyError,
    ModelUnavailableError,
    OutputExistsError,
    PhotoError,
    RequestError,
    SourceError,
    StorageError,
    UnfinishedError,
)
from ..records import Status

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
HUNG_UP = 499  # nobody receives it; the log and the figures show it

# Makes the page of a problem: of a request, with a status, a title and a detail.
ProblemPage = Callable[[Request, int, str, str], Response]

# The first class that fits gives the status.
_STATUSES: tuple[tuple[type[FacemillError], int], ...] = (
    (AccessError, 403),
    (PhotoError, 422),
    (RequestError, 400),
    (BusyError, 429),
    (LockedError, 409),
    (OutputExistsError, 409),
    (UnfinishedError, 409),
    (ContractError, 409),
    (Interrupted, 503),
    (MachineError, 503),
    (ModelUnavailableError, 503),
    (MissingDependencyError, 503),
    (SourceError, 422),
    (ConfigError, 422),
    (EngineError, 500),
    (StorageError, 500),
)
_TITLES = {
    400: "The request has the wrong form",
    401: "A valid token is needed",
    403: "The request is not allowed",
    404: "Not found",
    405: "The route has other methods",
    408: "The body took too long to arrive",
    409: "The state of the file does not allow it",
    413: "The request is too large",
    415: "The body has a type that is not read",
    422: "The request names something that cannot be used",
    429: "Too many requests",
    500: "The server failed",
    503: "The server cannot answer now",
}

_UNREADABLE = tuple(
    f"{status.label}: " for status in (Status.CORRUPT, Status.UNSUPPORTED, Status.UNREADABLE)
)  # errors of photos


class Refusal(Exception):
    """An answer with a status of its own.

    Attributes:
        status: HTTP status.
        error: the error, with its code.
        headers: headers of the answer.
    """

    def __init__(self, status: int, error: FacemillError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.status, self.error, self.headers = status, error, dict(headers or {})


def refuse_unreadable(error: str) -> None:
    """Refuse a photo that cannot be read. A photo without a face is an answer.

    Raises:
        PhotoError: it cannot be read.
    """
    if error.startswith(_UNREADABLE):
        raise PhotoError(error)


class HungUp(Exception):
    """The client closed its connection before it had its answer."""


def json_response(values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON; a number that is none becomes null."""
    return Response(msgspec.json.encode(values), status, headers, "application/json")


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an error.

    Args:
        status: HTTP status.
        code: code of an error of facemill.
        detail: what failed, what was received, what was expected.
        headers: further headers.
    """
    values = {
        "type": f"urn:facemill:{code}",
        "title": _TITLES.get(status, "The request failed"),
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(msgspec.json.encode(values), status, headers, MEDIA_TYPE)


def status_of(error: FacemillError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem_of(error: Exception) -> Response:
    """Answer with the problem of an exception; one that is a bug says nothing about the inside of the server."""
    if isinstance(error, Refusal):
        return problem(error.status, error.error.code, error.error.message, error.headers)
    if isinstance(error, HungUp):
        return Response(status_code=HUNG_UP)
    if isinstance(error, FacemillError):
        status = status_of(error)
        if status >= 500:
            logger.error("%s", error)
        return problem(status, error.code, error.message, {"Retry-After": "1"} if status in (429, 503) else None)
    logger.error("a request failed by a bug in facemill; please report it", exc_info=error)
    return problem(500, FacemillError.code, "an internal error; the log of the server has the details")


def add_handlers(app: FastAPI, show: ProblemPage | None = None) -> None:
    """Make every exception of a route a problem.

    Args:
        app: the application.
        show: makes the page of a problem, for browsers that ask for a page; None to answer everybody with JSON.
    """

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, problem_of(error))

    async def handle_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = RequestError.code if error.status_code < 500 else FacemillError.code
        detail = f"{error.detail}: {request.method} {request.url.path}; expected: a page or a route that /docs lists"
        return answer(request, problem(error.status_code, code, detail, error.headers))

    async def handle_values(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        reasons = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
        return answer(request, problem(422, RequestError.code, "; ".join(reasons)))

    def answer(request: Request, response: Response) -> Response:
        if show is None or response.status_code == HUNG_UP or not _asks_for_page(request):
            return response
        values = msgspec.json.decode(response.body)
        return show(request, response.status_code, values["title"], values["detail"])

    for kind in (FacemillError, Refusal, HungUp, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(RequestValidationError, handle_values)


def _asks_for_page(request: Request) -> bool:
    """Whether a browser opens an address; scripts and programs accept other types, or everything."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")
