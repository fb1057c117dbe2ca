"""All pages of the server, as routes for `server.app.make_app`."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from ..server.guard import Access
from ..server.service import Service
from .files_page import files_page
from .jobs_pages import jobs_pages
from .login import login_routes
from .machine_page import machine_page
from .models_page import models_page
from .pictures import picture_routes
from .recognise_page import recognise_page
from .review_pages import review_pages
from .static import static_routes


def page_routes(service: Service, access: Access) -> APIRouter:
    """The pages, their styles and scripts, and the login."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def first() -> Response:
        return RedirectResponse("/recognise" if service.files else "/create", 303)

    for routes in (
        static_routes(),
        login_routes(service, access),
        picture_routes(service),
        recognise_page(service),
        review_pages(service),
        files_page(service),
        jobs_pages(service),
        models_page(),
        machine_page(service),
    ):
        router.include_router(routes)
    return router
