"""The application: routes, guard and journal around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import HTMLResponse

from .. import __version__
from ..errors import BusyError
from .compreface import compreface_routes
from .file_routes import file_routes
from .guard import OPEN_ROUTES, Access, Guard, Tokens
from .jobs.routes import job_routes
from .journal import AuditLog, Journal, Metrics
from .openapi import STATE, answers, docs_page, docs_style, with_tokens
from .photo_routes import photo_routes
from .problems import ProblemPage, Refusal, add_handlers, json_response
from .review.routes import review_routes
from .service import Service

_DESCRIPTION = """Find, embed, compare and search faces. Photos are sent as multipart/form-data, as the bytes of an
image, or as Base64 in JSON. Results are what the library and the commands of facemill return. Errors are problems
(RFC 9457) with facemill's codes."""

Routes = Callable[[Service, Access], APIRouter]  # makes the routes of another room


def make_app(service: Service, others: Sequence[Routes] = (), show: ProblemPage | None = None) -> Journal:
    """Make the ASGI application of a service, which it closes at its end.

    Args:
        service: the engines and files.
        others: make the routes of other rooms, such as pages.
        show: makes the page of a problem for browsers; None for no pages.
    Raises:
        ConfigError: the file of tokens or the audit log cannot be used.
    """
    settings = service.settings
    access = Access(None if settings.token_file is None else Tokens.read(settings.token_file))
    metrics, audit = Metrics(service.room), AuditLog(settings.audit, settings.named_files)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.drain()
        service.close()
        audit.close()

    app = FastAPI(
        title="facemill",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    add_handlers(app, show)
    app.include_router(photo_routes(service))
    app.include_router(file_routes(service))
    app.include_router(job_routes(service))
    app.include_router(compreface_routes(service))
    app.include_router(review_routes(service))
    for routes in others:
        app.include_router(routes(service, access))
    _add_health(app, service, metrics)
    _add_docs(app)
    if access.tokens is not None:
        with_tokens(app.openapi(), sorted(OPEN_ROUTES))
    names = (settings.host, *settings.names)
    return Journal(Guard(app, access=access, names=names, rate=settings.rate), metrics=metrics, audit=audit)


def _add_health(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/api/v1/health/live", tags=["Health"], responses=answers(STATE))
    async def live() -> Response:
        """Say that the process answers."""
        return json_response({"status": "live"})

    @app.get("/api/v1/health/ready", tags=["Health"], responses=answers(STATE))
    async def ready() -> Response:
        """Say whether requests should be sent here: 503 while the server ends."""
        if service.is_draining:
            raise Refusal(503, BusyError("the server is ending; expected: a server that runs"), {"Retry-After": "1"})
        return json_response({"status": "ready"})

    @app.get("/api/v1/health", tags=["Health"], responses=answers(STATE))
    async def health() -> Response:
        """The same as `/api/v1/health/ready`."""
        return await ready()

    text = {"text/plain": {"schema": {"type": "string"}}}

    @app.get(
        "/metrics", tags=["Health"], responses={**answers(STATE), 200: {"description": "Figures.", "content": text}}
    )
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> Response:
        return Response(docs_style(), media_type="text/css")
