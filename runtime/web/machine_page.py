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
    """Examines the machine when it is asked for the first time, or again; an examination writes 64 MiB for a moment."""

    def __init__(self, disk: Path) -> None:
        """Set the folder whose disk is measured."""
        self._disk = disk
        self._lock = threading.Lock()
        self._latest: tuple[Examination, str] | None = None

    def latest(self) -> tuple[Examination, str]:
        """The latest examination, and when it ended."""
        with self._lock:
            if self._latest is None:
                self._latest = examine(self._disk), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
            return self._latest

    def forget(self) -> None:
        """Examine again when asked next."""
        with self._lock:
            self._latest = None


def machine_page(service: Service) -> APIRouter:
    """The page `/machine`, and the route that examines the machine again."""
    router = APIRouter(include_in_schema=False)
    files = service.settings.files
    doctor = Doctor(files[0].absolute().parent if files else Path.cwd())

    @router.get("/machine")
    def machine(request: Request) -> Response:
        examination, time = doctor.latest()
        return page(
            request,
            "machine",
            title="Machine",
            healthy=examination.healthy,
            time=time,
            sections=examination.sections,
            states=_STATES,
        )

    @router.post("/machine")
    def again(request: Request) -> Response:
        doctor.forget()
        return RedirectResponse("/machine", 303)

    return router
