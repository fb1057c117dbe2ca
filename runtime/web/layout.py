"""Fill in the templates of pages: one layout with the navigation, one look with the reports of the commands.

A template extends `layout.html`, which extends the base of the reports. Styles and scripts are files of `assets/`: the
policy of the server allows nothing inline, not even a `style` attribute, and nothing of other hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from .. import __version__
from ..pages.page import encode, environment
from ..server.guard import NOBODY

_ROOM = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation.

    Attributes:
        path: the path of its page.
        label: its name for people.
    """

    path: str
    label: str


# In the order of the navigation.
PLACES = (
    Place("/create", "Create dataset"),
    Place("/recognise", "Recognise"),
    Place("/same", "Same person twice"),
    Place("/people", "People"),
    Place("/files", "Files"),
    Place("/jobs", "Jobs"),
    Place("/models", "Models"),
    Place("/machine", "Machine"),
)


def page(
    request: Request,
    template: str,
    *,
    title: str,
    styles: Sequence[str] = (),
    modules: Sequence[str] = (),
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """Answer with a page.

    Args:
        request: the request.
        template: name of a file in `templates/`, without `.html`.
        title: title and heading.
        styles: names of files in `assets/`, without `.css`; they follow the styles of all pages.
        modules: names of ES modules in `assets/`, without `.js`.
        status: HTTP status.
        values: values of the template; every one is escaped, and its hidden characters are made visible.
    """
    client = request.scope.get("facemill.client", NOBODY)
    return fragment(
        template,
        status,
        title=title,
        styles=styles,
        modules=modules,
        places=PLACES,
        here=request.url.path,
        client="" if client == NOBODY else client,
        version=__version__,
        **{"warning": "", "scripts": (), **values},
    )


def fragment(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a template that is part of a page, for a script that puts it there."""
    text = environment(_ROOM).get_template(f"{template}.html").render(**values)
    return HTMLResponse(encode(text), status)
