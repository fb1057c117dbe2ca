"""The routes about embedding files: list, add photos, remove photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from ..errors import RequestError
from ..schema import convert
from .open_files import OpenFile, facts_of_each
from .openapi import ADDED, FILES, REMOVED, answers, json_body
from .photo_routes import Key, check_parameters
from .problems import Refusal, json_response
from .service import Service

_MAX_NAMES = 10_000
_NAME = {"type": "string", "minLength": 1, "maxLength": 4096}
_NAMES = {"type": "array", "items": _NAME, "minItems": 1, "maxItems": _MAX_NAMES}
_FLAG = {"type": "boolean", "default": False}

T = TypeVar("T")


@dataclass(frozen=True)
class Addition:
    """The body of `/add`: folders and files below the roots; whether photos that failed are embedded again."""

    photos: tuple[str, ...]
    retry: bool = False


@dataclass(frozen=True)
class RemovalRequest:
    """The body of `/remove`: photos and folders as the file names them, and options of `facemill.remove`."""

    names: tuple[str, ...]
    ignore_missing: bool = False
    keep_pages: bool = False


def file_routes(service: Service) -> APIRouter:
    """The routes below `/api/v1/files`."""
    router = APIRouter(prefix="/api/v1/files", tags=["Files"])

    async def read(request: Request, name: str, kind: type[T], *keys: str) -> T:
        """Read the body of a change, after its file is known."""
        check_parameters(request, set())
        request.scope["facemill.file"] = service.file(name).name
        values = await service.bodies.json(request, keys)
        try:
            body = convert(values, kind)
        except ValueError as err:
            raise Refusal(422, RequestError(str(err))) from err
        names: tuple[str, ...] = getattr(body, keys[0])
        if not 0 < len(names) <= _MAX_NAMES or not all(names) or any("\0" in each for each in names):
            raise Refusal(
                422, RequestError(f"{keys[0]} are {len(names)} names; expected: 1 to {_MAX_NAMES}, none empty")
            )
        return body

    @router.get("", responses=answers(FILES))
    def files(request: Request) -> Response:
        """List the files that this server answers for. One that cannot be used any more has an `error`."""
        check_parameters(request, set())
        return json_response({"files": facts_of_each(service.files, OpenFile.to_dict)})

    @router.post(
        "/{name}/add", responses=answers(ADDED), openapi_extra=json_body({"photos": _NAMES, "retry": _FLAG}, "photos")
    )
    async def add(request: Request, name: str, key: Key = "") -> Response:
        """Embed photos below the folders of `--photos` that the file does not have, and put them into it.

        The next search sees them. A photo that the file has under the same path is skipped, so the request may be
        repeated.
        """
        body = await read(request, name, Addition, "photos", "retry")
        client = request.scope["facemill.client"]
        added = await service.changes.add(service.file(name), body.photos, retry=body.retry, client=client, key=key)
        return json_response(added)

    @router.post(
        "/{name}/remove",
        responses=answers(REMOVED),
        openapi_extra=json_body(
            {"names": _NAMES, "ignore_missing": _FLAG, "keep_pages": _FLAG},
            "names",
        ),
    )
    async def remove(request: Request, name: str, key: Key = "") -> Response:
        """Erase photos from the file and from everything made from it, and return the receipt.

        The photos themselves are not deleted. Names are those of hits, or folders of them.
        """
        body = await read(request, name, RemovalRequest, "names", "ignore_missing", "keep_pages")
        client = request.scope["facemill.client"]
        removed = await service.changes.remove(
            service.file(name),
            body.names,
            ignore_missing=body.ignore_missing,
            keep_pages=body.keep_pages,
            client=client,
            key=key,
        )
        return json_response(removed)

    return router
