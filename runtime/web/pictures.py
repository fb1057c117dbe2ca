"""Small JPEGs of the photos of rows, for pages. They hold pixels alone: no metadata of the photo comes along."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response

from ..errors import AccessError, RequestError
from ..pages.thumbnails import thumbnail
from ..pipeline.settings import usable_cores
from ..server.open_files import Opened, OpenFile
from ..server.problems import Refusal
from ..server.service import Service
from ..server.settings import path_below

View = Literal["small", "face", "photo"]
_SIDES = {"small": 192, "face": 480, "photo": 960}  # pixels, the longer side
_CACHE_BYTES = 64 << 20


class PictureCache:
    """The latest pictures of each file, in memory. Pictures of an earlier state are forgotten with it."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        """Set the limit: bytes of all pictures."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._pictures: OrderedDict[tuple[str, int, View], bytes] = OrderedDict()
        self._states: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, file: str, state: str, row: int, view: View) -> bytes | None:
        """The picture of a row; None if it is not there. A new state of the file ends those of the one before."""
        with self._lock:
            if self._states.setdefault(file, state) != state:
                for key in [key for key in self._pictures if key[0] == file]:
                    self._bytes -= len(self._pictures.pop(key))
                self._states[file] = state
            if (file, row, view) not in self._pictures:
                return None
            self._pictures.move_to_end((file, row, view))
            return self._pictures[file, row, view]

    def put(self, file: str, state: str, row: int, view: View, picture: bytes) -> None:
        """Keep a picture, unless its file has another state by now."""
        with self._lock:
            if self._states.get(file) != state:
                return
            self._bytes += len(picture) - len(self._pictures.pop((file, row, view), b""))
            self._pictures[file, row, view] = picture
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._pictures.popitem(last=False)[1])


def picture_routes(service: Service) -> APIRouter:
    """The route of pictures of rows: `/pictures/FILE/STATE/ROW?view=small`."""
    router = APIRouter(include_in_schema=False)
    cache, pool = PictureCache(), ThreadPoolExecutor(usable_cores(), "picture")

    def make(file: OpenFile, state: str, row: int, view: View) -> bytes:
        with file.use() as opened:
            if opened.state != state or not 0 <= row < opened.search.file.rows:
                raise Refusal(404, RequestError(f"{file.name} has changed since the page was made. Load it again"))
            picture = cache.get(file.name, state, row, view)
            if picture is None:
                picture = _draw(opened, row, view, service)
                cache.put(file.name, state, row, view, picture)
            return picture

    @router.get("/pictures/{name}/{state}/{row}")
    async def picture(request: Request, name: str, state: str, row: int, view: View = "small") -> Response:
        file = service.file(name)
        request.scope["facemill.file"] = file.name
        jpeg = await asyncio.get_running_loop().run_in_executor(pool, make, file, state, row, view)
        return Response(jpeg, media_type="image/jpeg")

    return router


def _draw(opened: Opened, row: int, view: View, service: Service) -> bytes:
    """Make the picture of a row.

    Raises:
        AccessError: its photo is a link that leads out of the photos of the file and of the server.
        Refusal: the photo is not there, or cannot be read.
    """
    file = opened.search.file
    path = file.photo_path(row)
    roots = (Path(os.fsdecode(file.root)), *service.settings.roots)
    real = path_below(roots, os.fsdecode(path)) if os.path.lexists(path) else None
    if real is None and os.path.lexists(path):
        raise AccessError(f"the photo of row {row} is outside the photos of the file; expected: one below --photos")
    (face,) = file.face_places([row])
    place = None if view == "photo" else face
    jpeg = real and thumbnail(os.fsencode(real), place, service.settings.limits, side=_SIDES[view])
    if not jpeg:
        raise Refusal(404, RequestError(f"the photo of row {row} cannot be shown: it is missing, or damaged"))
    return jpeg
