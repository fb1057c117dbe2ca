"""The page *Machine*: what `facemill doctor` says of this machine."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ..doctor.examine import Examination, examine
from ..server.service import Service
from .layout import page

_STATES = {"ok": "fine", "missing": "missing", "wrong": "wrong", "info": ""}


class Doctor:
    """Examines the machine in a thread: when asked for the first time, and again on demand.

    An examination imports all packages in other processes, and writes 64 MiB for a moment.
    """

    def __init__(self, disk: Path) -> None:
        """Set the folder whose disk is measured."""
        self._disk = disk
        self._working = threading.Lock()
        self._latest: tuple[Examination, str] | None = None

    def latest(self) -> tuple[Examination, str] | None:
        """The latest examination, and when it ended; None while the first one runs."""
        if self._latest is None:
            self.start()
        return self._latest

    @property
    def is_working(self) -> bool:
        """Whether an examination runs."""
        return self._working.locked()

    def start(self) -> None:
        """Begin an examination, unless one runs already."""
        if self._working.acquire(blocking=False):
            threading.Thread(target=self._examine, daemon=True).start()

    def _examine(self) -> None:
        try:
            self._latest = examine(self._disk), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        finally:
            self._working.release()


def machine_page(service: Service) -> APIRouter:
    """The page `/machine`, and the route that examines the machine again."""
    router = APIRouter(include_in_schema=False)
    files = service.settings.files
    doctor = Doctor(files[0].absolute().parent if files else Path.cwd())

    @router.get("/machine")
    def machine(request: Request) -> Response:
        latest = doctor.latest()
        return page(
            request,
            "machine",
            title="Machine",
            modules=["reload"] if doctor.is_working else [],
            working=doctor.is_working,
            latest=latest,
            states=_STATES,
        )

    @router.post("/machine")
    def again(request: Request) -> Response:
        doctor.start()
        return RedirectResponse("/machine", 303)

    return router
