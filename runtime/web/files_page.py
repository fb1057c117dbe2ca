"""The page *Files*: the embedding files of the server, each with its rows and its model."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ..server.service import Service
from .layout import page


def files_page(service: Service) -> APIRouter:
    """The page `/files`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/files")
    def files(request: Request) -> Response:
        facts = []
        for name, file in service.files.items():
            with file.use() as opened:
                facts.append(opened.to_dict(name))
        return page(request, "files", title="Files", files=facts)

    return router
