"""All pages of the server, as routes for `server.app.make_app`."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from ..server.guard import Access
from ..server.service import Service
from .files_page import files_page
from .layout import PLACES
from .login import login_routes
from .static import static_routes


def page_routes(service: Service, access: Access) -> APIRouter:
    """The pages, their styles and scripts, and the login."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def first() -> Response:
        return RedirectResponse(PLACES[0].path, 303)

    for routes in (static_routes(), login_routes(access), files_page(service)):
        router.include_router(routes)
    return router
