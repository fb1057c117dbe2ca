"""The page *Files*: the embedding files of the server, their contracts in words, and whether they are whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ..errors import BusyError, FacemillError
from ..maintenance.verify import verify
from ..server.open_files import OpenFile, facts_of_each
from ..server.problems import Refusal
from ..server.service import Service
from ..text import size
from .contract_words import contract_words
from .layout import page


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification says of one state of a file.

    Attributes:
        state: the state that was verified.
        result: "running", "whole" or "damaged".
        time: when it began or ended.
        findings: what is damaged.
    """

    state: str
    result: str
    time: str
    findings: tuple[str, ...] = ()


class Verifications:
    """Verifies files, one at a time, and remembers the latest result of each."""

    def __init__(self) -> None:
        self._results: dict[str, Verification] = {}
        self._working = threading.Lock()

    def of(self, name: str, state: str) -> Verification | None:
        """The result for a state of a file; None if it has not been verified."""
        result = self._results.get(name)
        return result if result is not None and result.state == state else None

    def start(self, file: OpenFile) -> None:
        """Verify a file in a thread.

        Raises:
            Refusal: another file is being verified.
        """
        with file.use() as opened:
            state = opened.state
        if not self._working.acquire(blocking=False):
            raise Refusal(409, BusyError("another file is being verified. Wait until that has ended"))
        self._results[file.name] = Verification(state, "running", _now())
        threading.Thread(target=self._verify, args=(file, state), daemon=True).start()

    def _verify(self, file: OpenFile, state: str) -> None:
        try:
            verified = verify(file.path)
            findings = (*verified.findings, *verified.indexes)
        except FacemillError as err:
            findings = (str(err),)
        finally:
            self._working.release()
        self._results[file.name] = Verification(state, "damaged" if findings else "whole", _now(), tuple(findings))


def files_page(service: Service) -> APIRouter:
    """The page `/files`, and the route that verifies a file."""
    router = APIRouter(include_in_schema=False)
    verifications = Verifications()

    def facts_of(served: OpenFile) -> dict[str, Any]:
        with served.use() as opened:
            file = opened.search.file
            failed = {label: count for label, count in file.outcomes.items() if label != "embedded" and count}
            return {
                **opened.to_dict(),
                "path": str(file.path),
                "size": size(file.path.stat().st_size),
                "photos": sum(file.outcomes.values()),
                "failed": failed,
                "contract": contract_words(file.contract),
                "verification": verifications.of(served.name, opened.state),
            }

    @router.get("/files")
    def files(request: Request) -> Response:
        facts = facts_of_each(service.files, facts_of)
        checks = [each.get("verification") for each in facts]
        running = any(check is not None and check.result == "running" for check in checks)
        modules = ["reload"] if running else []
        return page(request, "files", title="Files", modules=modules, files=facts)

    @router.post("/files/{name}/verify")
    def start(request: Request, name: str) -> Response:
        file = service.file(name)
        request.scope["facemill.file"] = file.name
        verifications.start(file)
        return RedirectResponse("/files", 303)

    return router


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
