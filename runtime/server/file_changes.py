"""Add photos to files and remove photos from them, one change of a file at a time, each key of a client once."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.jobs import add, remove
from ..errors import AccessError, LockedError, RequestError
from ..interrupt import RunControl
from .open_files import OpenFile
from .problems import Refusal
from .settings import path_below

_MAX_KEYS = 1000  # answers that are remembered


@dataclass(frozen=True, slots=True)
class _Kept:
    """The answer to a change, under its key.

    Attributes:
        question: what was to be changed.
        answer: becomes the answer.
    """

    question: tuple[Any, ...]
    answer: asyncio.Future[dict[str, Any]]


class KeyedAnswers:
    """The answers to changes under the keys of clients, so that a repeated request changes nothing twice."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def once(
        self,
        question: tuple[Any, ...],
        change: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
        client: str,
        key: str,
    ) -> dict[str, Any]:
        """Do a change, or return its answer if the client sent the same key before.

        Args:
            question: what is to be changed.
            change: does it.
            client, key: the client, and its key of this request; an empty key is none.
        Raises:
            Refusal: the key was sent with another question.
        """
        if not key:
            return await change()
        kept = self._kept.get((client, key))
        if kept is not None:
            if kept.question != question:
                reason = f"the key {key!r:.60} was sent before, with another request; expected: a new Idempotency-Key"
                raise Refusal(422, RequestError(reason))
            return await asyncio.shield(kept.answer)
        answer = asyncio.ensure_future(change())
        self._kept[client, key] = _Kept(question, answer)
        answer.add_done_callback(lambda done: self._forget_failure(client, key, done))
        while len(self._kept) > _MAX_KEYS:
            self._kept.popitem(last=False)
        return await asyncio.shield(answer)  # a client that hangs up does not undo the change

    def _forget_failure(self, client: str, key: str, done: asyncio.Future[dict[str, Any]]) -> None:
        """Let a client try again with the same key what has failed."""
        if done.cancelled() or done.exception() is not None:
            self._kept.pop((client, key), None)


class FileChanges:
    """Changes of files. All methods are called in the event loop, and the work is done in threads."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        """Set the folders below which photos may be read."""
        self._roots = roots
        self._control = RunControl()
        self._changing: set[str] = set()
        self._answers = KeyedAnswers()

    def stop(self) -> None:
        """Stop additions that run; the same request resumes them."""
        self._control.stop()

    async def add(self, file: OpenFile, photos: Sequence[str], *, retry: bool, client: str, key: str) -> dict[str, Any]:
        """Add photos below the roots to a file; see `facemill.add`.

        Args:
            file: the file.
            photos: folders and files, absolute or relative to a root.
            retry: also embed again the photos that failed.
            client, key: the client, and its key of this request; an empty key is none.
        Returns:
            What was added, for JSON.
        Raises:
            AccessError: a photo is outside the roots, or a link leads out of them.
            Refusal, FacemillError: the photos cannot be added.
        """

        def work() -> dict[str, Any]:
            paths = [os.fspath(self._path_below(name)) for name in photos]
            within = [os.path.realpath(root) for root in self._roots]
            added = add(file.path, paths, retry=retry, within=within, control=self._control)
            return {"file": file.name, **added.to_dict()}

        return await self._once(file, ("add", file.name, tuple(photos), retry), work, client, key)

    async def remove(
        self, file: OpenFile, names: Sequence[str], *, ignore_missing: bool, keep_pages: bool, client: str, key: str
    ) -> dict[str, Any]:
        """Remove photos from a file; see `facemill.remove`.

        Args:
            file: the file.
            names: photos and folders, as the file names them.
            ignore_missing: ignore names that are not in the file.
            keep_pages: leave pages, lists and folders that show photos.
            client, key: see `add`.
        Returns:
            The receipt, for JSON; null if nothing was removed.
        Raises:
            Refusal, FacemillError: the photos cannot be removed.
        """

        def work() -> dict[str, Any]:
            receipt = remove(file.path, list(names), ignore_missing=ignore_missing, keep_pages=keep_pages)
            return {"file": file.name, "receipt": None if receipt is None else receipt.to_dict()}

        question = "remove", file.name, tuple(names), ignore_missing, keep_pages
        return await self._once(file, question, work, client, key)

    async def _once(
        self, file: OpenFile, question: tuple[Any, ...], work: Callable[[], dict[str, Any]], client: str, key: str
    ) -> dict[str, Any]:
        """Do a change, or return its answer if the client sent the same key before."""
        return await self._answers.once(question, lambda: self._change(file, work), client, key)

    async def _change(self, file: OpenFile, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if file.name in self._changing:
            raise LockedError(f"another request is changing {file.name}. Send the request again when it has ended")
        self._changing.add(file.name)
        return await asyncio.shield(asyncio.ensure_future(self._in_thread(file, work)))

    async def _in_thread(self, file: OpenFile, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(_work_and_open, file, work)
        finally:
            self._changing.discard(file.name)

    def _path_below(self, name: str) -> Path:
        path = path_below(self._roots, name)
        if path is None:
            where = "no folder of photos is open" if not self._roots else "it is outside the folders of --photos"
            raise AccessError(f"{name!r:.200} cannot be read: {where}, or it does not exist")
        return path


def _work_and_open(file: OpenFile, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Change a file and open it again, so that no search has to wait for its index."""
    answer = work()
    with file.use():
        return answer
