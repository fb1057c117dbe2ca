"""The page of a problem, such as an address without a page, for somebody at a browser."""

from __future__ import annotations

from fastapi import Request, Response

from .layout import page


def problem_page(request: Request, status: int, title: str, detail: str) -> Response:
    """Answer with the page of a problem; see `server.problems.add_handlers`.

    Args:
        request: the request.
        status: HTTP status.
        title: what kind of problem it is.
        detail: what failed, what was received, what was expected.
    """
    return page(request, "problem", title=title, status=status, detail=detail)
