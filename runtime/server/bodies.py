"""Read the photos of a request: multipart, the bytes of one photo, or JSON with Base64. Nothing goes to the disk."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from starlette.requests import ClientDisconnect

from ..errors import BusyError, RequestError
from ..schema import parse_json
from .multipart import split_multipart
from .problems import HungUp, Refusal

IMAGE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/bmp",
    "image/tiff",
    "image/jp2",
    "image/avif",
    "application/octet-stream",
)
_MAX_PARTS = 8  # parts of a multipart body; a request has at most two photos
_HELD_BYTES = 1 << 30  # bodies of all requests at the same time


class BodyReader:
    """Reads bodies within limits of size and time, and within one budget of memory for all requests."""

    def __init__(self, *, max_photo: int, max_body: int, seconds: float) -> None:
        """Store the limits.

        Args:
            max_photo: maximum size of a photo, bytes.
            max_body: maximum size of a body, bytes.
            seconds: longest time from the start of a request to the end of its body.
        """
        self._max_photo, self._max_body, self._seconds = max_photo, max_body, seconds
        self._held = 0

    @contextmanager
    def photos(self, names: Sequence[str], *, max_body: int | None = None) -> Iterator[Reading]:
        """A block in which the photos of one request are read, and counted in the budget.

        Args:
            names: the names of the photos in multipart and JSON; bytes of one photo need no name.
            max_body: maximum size of the body, bytes; None for that of the server.
        """
        reading = Reading(self, names, self._max_body if max_body is None else max_body)
        try:
            yield reading
        finally:
            self._held -= reading.held

    def _hold(self, count: int) -> None:
        if self._held + count > _HELD_BYTES:
            raise BusyError(f"the requests that are read hold {self._held} bytes; expected: at most {_HELD_BYTES}")
        self._held += count

    async def json(self, request: Request, names: Sequence[str]) -> dict[str, Any]:
        """Read a JSON object without photos.

        Raises:
            Refusal: it is no JSON object, or has other keys than `names`.
        """
        with self.photos(()) as reading:
            return _json_object(await reading.body(request, json_only=True), names)

    async def form(self, request: Request, *, max_body: int) -> dict[str, str]:
        """Read a form without files, of at most `max_body` bytes.

        Raises:
            Refusal, BusyError, HungUp: see `Reading.read`.
        """
        with self.photos((), max_body=max_body) as reading:
            body = await reading.body(request)
        return {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}


class Reading:
    """The body of one request.

    Attributes:
        held: bytes of it in the budget.
    """

    def __init__(self, reader: BodyReader, names: Sequence[str], max_body: int) -> None:
        self._reader, self._names, self._max_body = reader, names, max_body
        self.held = 0

    async def read(self, request: Request) -> list[bytes]:
        """Read the photos, in the order of their names.

        Raises:
            Refusal: the type is unknown, the body is too large or too slow, or a photo is missing.
            BusyError: the bodies of all requests fill the memory.
            HungUp: the client went away.
        """
        kind = _media_type(request)
        if kind == "multipart/form-data":
            photos = await self._multipart(request)
        elif kind == "application/json":
            photos = _from_base64(_json_object(await self.body(request), self._names))
        elif kind in IMAGE_TYPES and len(self._names) == 1:
            photos = {self._names[0]: await self.body(request)}
        else:
            expected = "multipart/form-data, application/json" + (", or an image" if len(self._names) == 1 else "")
            raise Refusal(415, RequestError(f"the body has the type {kind!r:.60}; expected: {expected}"))
        missing = [name for name in self._names if not photos.get(name)]
        if missing:
            raise Refusal(400, RequestError(f"the body has no photo {missing[0]!r}; expected: {_listed(self._names)}"))
        largest = max(map(len, photos.values()))
        if largest > self._reader._max_photo:
            raise _too_large(largest, self._reader._max_photo)
        return [photos[name] for name in self._names]

    async def body(self, request: Request, *, json_only: bool = False) -> bytes:
        """Read the whole body.

        Raises:
            Refusal, BusyError, HungUp: see `read`.
        """
        if json_only and _media_type(request) != "application/json":
            kind = _media_type(request)
            raise Refusal(415, RequestError(f"the body has the type {kind!r:.60}; expected: application/json"))
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, RequestError("the body is compressed; expected: a body without Content-Encoding"))
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self._max_body:
            raise _too_large(int(stated), self._max_body)
        chunks: list[bytes] = []
        try:
            await asyncio.wait_for(self._collect(request, chunks), self._reader._seconds)
        except asyncio.TimeoutError as err:  # the builtin only from Python 3.11 on
            reason = f"{self.held} bytes of the body arrived in {self._reader._seconds:g} s; expected: all of it"
            raise Refusal(408, RequestError(reason), {"Connection": "close"}) from err
        except ClientDisconnect as err:
            raise HungUp from err
        return b"".join(chunks)

    async def _collect(self, request: Request, chunks: list[bytes]) -> None:
        async for chunk in request.stream():
            if self.held + len(chunk) > self._max_body:
                raise _too_large(self.held + len(chunk), self._max_body)
            self._reader._hold(len(chunk))
            self.held += len(chunk)
            chunks.append(chunk)

    async def _multipart(self, request: Request) -> dict[str, bytes]:
        body = await self.body(request)
        try:
            parts = split_multipart(body, request.headers["content-type"], max_parts=_MAX_PARTS)
        except ValueError as err:
            raise Refusal(400, RequestError(f"the multipart body cannot be read: {err}")) from err
        photos: dict[str, bytes] = {}
        for name, is_file, content in parts:
            if name not in self._names or name in photos or not is_file:
                expected = f"one file each for {_listed(self._names)}"
                raise Refusal(400, RequestError(f"the body has a part {name!r:.60}; expected: {expected}"))
            photos[name] = content
        return photos


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _json_object(body: bytes, names: Sequence[str]) -> dict[str, Any]:
    try:
        values = parse_json(body)
    except ValueError as err:
        raise Refusal(400, RequestError(f"the body cannot be read: {err}")) from err
    if not isinstance(values, dict):
        raise Refusal(400, RequestError(f"the body is a JSON {type(values).__name__}; expected: an object"))
    unknown = [name for name in values if name not in names]
    if unknown:
        raise Refusal(400, RequestError(f"the body has a key {unknown[0]!r:.60}; expected: {_listed(names)}"))
    return values


def _from_base64(values: dict[str, Any]) -> dict[str, bytes]:
    photos = {}
    for name, value in values.items():
        try:
            if not isinstance(value, str):
                raise ValueError(f"a {type(value).__name__}")
            photos[name] = base64.b64decode(value.rpartition("base64,")[2], validate=True)  # or a data URL
        except (ValueError, binascii.Error) as err:
            raise Refusal(400, RequestError(f"{name} is no Base64 ({err}); expected: the bytes of a photo")) from err
    return photos


def _too_large(size: int, limit: int) -> Refusal:
    reason = f"{size} bytes, over the limit of {limit}"
    return Refusal(413, RequestError(reason), {"Connection": "close"})


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))
