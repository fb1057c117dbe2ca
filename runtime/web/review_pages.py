"""The pages *Same person twice* and *People*: what they show and change comes from the routes of the review."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ..pairs.threshold import choose_threshold
from ..server.open_files import OpenFile, facts_of_each
from ..server.service import Service
from .layout import page

_USUAL_THRESHOLD = 0.5  # to begin with, if no calibration says more


def review_pages(service: Service) -> APIRouter:
    """The pages `/same` and `/people`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/same")
    def same(request: Request) -> Response:
        files = facts_of_each(service.files, _facts)
        return page(
            request, "same", title="Same person twice", styles=["review", "same"], modules=["same"], files=files
        )

    @router.get("/people")
    def people(request: Request) -> Response:
        files = facts_of_each(service.files, _facts)
        return page(request, "people", title="People", styles=["review", "people"], modules=["people"], files=files)

    return router


def _facts(file: OpenFile) -> dict[str, Any]:
    return {"threshold": _first_threshold(file)}


def _first_threshold(file: OpenFile) -> float:
    """The threshold that a page proposes: that of the calibration, rounded up, if the file has one."""
    with file.use() as opened:
        calibration = opened.search.calibration
        if calibration is None:
            return _USUAL_THRESHOLD
        return min(1.0, round(choose_threshold(opened.search.file, calibration, None, None) + 0.0005, 3))
