"""The reviews of all files of a server, and what their routes share: bodies, versions, cursors, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Query, Request, Response

from ...errors import BusyError, ConfigError, ContractError, RequestError
from ...review.constraints import PAIR_KINDS
from ...review.review import Review
from ..file_changes import KeyedAnswers
from ..guard import NOBODY
from ..photo_routes import check_parameters
from ..problems import Refusal, json_response
from ..service import Service
from .background import Waiting
from .reviewed_file import ReviewedFile

MAX_PAGE = 1000  # entries of a page
Limit = Annotated[int, Query(description="Maximum number of entries of the answer.", ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(description="`next` of the answer before.", max_length=64)]
T = TypeVar("T")


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of undo and redo: an empty object."""


class Reviews:
    """The reviews of the files of a server.

    Attributes:
        service: the server.
    """

    def __init__(self, service: Service) -> None:
        """Make a review of each file; nothing is read before a request."""
        self.service = service
        self._files = {name: ReviewedFile(file) for name, file in service.files.items()}
        self._answers = KeyedAnswers()

    def of(self, request: Request, file: str | None) -> ReviewedFile:
        """The review of a file; without a name of the only one. The journal notes the file.

        Raises:
            Refusal: there is no such file.
        """
        opened = self.service.file(file)
        request.scope["facemill.file"] = opened.name
        if opened.name not in self._files:
            self._files[opened.name] = ReviewedFile(opened)
        return self._files[opened.name]

    async def body(self, request: Request, kind: type[T], *parameters: str) -> T:
        """Read and check the body of a change.

        Raises:
            Refusal: it has another form.
        """
        check_parameters(request, {"file", *parameters})
        values = await self.service.bodies.json(request, _names_of(kind))
        try:
            return msgspec.convert(values, kind)
        except msgspec.ValidationError as err:
            raise Refusal(422, RequestError(f"the body is wrong: {err}")) from err

    async def change(
        self,
        request: Request,
        file: ReviewedFile,
        question: Any,
        work: Callable[[ReviewedFile, str], dict[str, Any]],
        key: str,
    ) -> Response:
        """Do a change in a thread, each key of a client once, and answer with its result."""
        client = request.scope["facemill.client"]
        who = "" if client == NOBODY else client

        async def change() -> dict[str, Any]:
            return await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(work, file, who)))

        asked = (request.url.path, file.file.name, msgspec.json.encode(question))
        return json_response(await self._answers.once(asked, change, client, key))

    async def step(
        self, request: Request, name: str | None, key: str, move: Callable[[Review], int | None]
    ) -> Response:
        """Undo or redo a decision of a client.

        Args:
            request: the request, whose body is empty.
            name: the file; None for the only one.
            key: the client's key of the request.
            move: takes the step; returns the number of the decision, None if there is none.
        """
        reviewed = self.of(request, name)
        body = await self.body(request, Nothing)

        def work(reviewed: ReviewedFile, who: str) -> dict[str, Any]:
            with reviewed.review(who) as review:
                return _step_of(review, move(review))

        return await self.change(request, reviewed, body, work, key)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do something slow in a thread."""
        return await asyncio.to_thread(work)

    def stop(self) -> None:
        """Stop long work, because the server is ending."""
        for file in self._files.values():
            file.stop()

    def close(self) -> None:
        """Wait for long work, and close all files."""
        for file in self._files.values():
            file.close()


def _names_of(kind: type[Any]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def _step_of(review: Review, number: int | None) -> dict[str, Any]:
    """What was undone or redone, for JSON."""
    if number is None:
        return {"decision": None}
    kind, rows, others = review.rows_of(number)
    now = {"now": review.state(rows[0], others[0])} if kind in PAIR_KINDS and rows and others else {}
    return {"decision": number, "kind": kind, "rows": list(rows), "others": list(others), **now}


def setting_aside(review: Review, decide: Callable[[], T]) -> tuple[T, list[int]]:
    """Decide, and name the earlier decisions that the new ones contradict.

    Returns:
        What `decide` returns, and the numbers of the decisions that are set aside now and were not before.
    Raises:
        Refusal: a value is wrong.
    """
    before = set(review.rules.constraints.set_aside)
    decided = checked(decide)
    return decided, sorted(set(review.rules.constraints.set_aside) - before)


def still_working(waiting: Waiting) -> Response:
    """The answer while long work runs: 202, and when to come back."""
    return json_response({"state": "working", "done": round(waiting.done, 4)}, 202, {"Retry-After": "1"})


def refuse_other_version(file: ReviewedFile, version: str) -> None:
    """Refuse a change by somebody who saw other rows.

    Raises:
        Refusal: the file has changed since.
    """
    if version != file.version:
        reason = f"the version is {version!r:.80}, and the rows of {file.file.name} have changed since"
        raise Refusal(409, ContractError(f"{reason}. Load the list again, and decide about what it shows now"))


def checked(work: Callable[[], T]) -> T:
    """Do something whose values a client chose, so that a wrong one is a problem of the request.

    Raises:
        Refusal: a value is wrong.
    """
    try:
        return work()
    except ConfigError as err:
        raise Refusal(422, err) from err


def place_of(cursor: str | None, key: str) -> int:
    """The place in a list at which a page begins.

    Args:
        cursor: of the page before; None for the first page.
        key: tells the list from others.
    Raises:
        Refusal: the cursor is of another list, or none.
    """
    if cursor is None:
        return 0
    of, _, place = cursor.partition(".")
    if not (place.isascii() and place.isdigit() and len(place) < 12):
        raise Refusal(422, RequestError(f"the cursor is {cursor!r:.80}; expected: `next` of the answer before"))
    if of != key:
        raise Refusal(409, BusyError("the list has changed since the cursor was given. Begin again without a cursor"))
    return int(place)
