"""Styles and scripts of pages, with ETags: a browser that has a file asks only whether it is still the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from ..errors import RequestError
from ..pages.page import asset
from ..server.guard import ASSETS
from ..server.problems import Refusal

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of `assets/`.

    Attributes:
        content: its bytes.
        media_type: its type.
        etag: tells this content from others.
    """

    content: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """All files that pages load, by name: those of this room, and the style that reports share."""
    texts = {"page.css": asset("page.css")}
    texts |= {entry.name: entry.read_text("utf-8") for entry in (Path(__file__).parent / "assets").iterdir()}
    return {name: _asset(name, text.encode()) for name, text in texts.items()}


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def static_routes() -> APIRouter:
    """The route of these files."""
    router = APIRouter(include_in_schema=False)

    @router.get(ASSETS + "{name}")
    async def static(request: Request, name: str) -> Response:
        found = assets().get(name)
        if found is None:
            raise Refusal(404, RequestError(f"no style or script is named {name!r:.100}"))
        headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
        if found.etag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        return Response(found.content, 200, headers, found.media_type)

    return router
