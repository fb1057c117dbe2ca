"""Log a browser in and out: a client types its token once, and the browser keeps a cookie that scripts cannot read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ..server.guard import COOKIE, LOGIN, SESSION_S, Access
from ..server.service import Service
from .layout import PLACES, page

_MAX_FORM = 4096  # bytes


def login_routes(service: Service, access: Access) -> APIRouter:
    """The page `/login`, and the route that ends a session."""
    router = APIRouter(include_in_schema=False)

    def form(request: Request, target: str, error: str = "") -> Response:
        return page(
            request, "login", title="Log in", status=401 if error else 200, target=_own_page(target), error=error
        )

    @router.get(LOGIN)
    async def ask(request: Request) -> Response:
        if access.tokens is None:
            return RedirectResponse("/", 303)
        return form(request, request.query_params.get("next", ""))

    @router.post(LOGIN)
    async def login(request: Request) -> Response:
        values = await service.bodies.form(request, max_body=_MAX_FORM)
        target = _own_page(values.get("next", ""))
        session = access.open_session(values.get("token", "").strip())
        if session is None:
            return form(request, target, "This is no token of the server. The operator keeps them in --token-file.")
        request.scope["facemill.client"], cookie = session
        response = RedirectResponse(target, 303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto") == "https",
        )
        return response

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        access.close_session(request.headers)
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE)
        return response

    return router


def _own_page(path: str) -> str:
    """A path if it is one of a page, else that of the first page: a link must not lead to another site."""
    return path if any(path == place.path for place in PLACES) else "/"
