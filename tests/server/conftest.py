"""A server in this process: fast engines, an embedding file of pictures with red squares, and clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import runtime as facemill
from runtime.engines.engine import Engine
from runtime.faces.rules import FaceRules
from runtime.server.app import make_app
from runtime.server.service import Service
from runtime.server.settings import ServerSettings
from tests.support.photos_of_squares import squares
from tests.support.red_square_detector import build_red_squares

URL = "http://127.0.0.1:8420"
TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
Client = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def square_detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build_red_squares(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def engines(tiny_engine: Path, square_detector: Engine) -> dict[str, Any]:
    """The options of `facemill.FaceEmbedder` for fast engines."""
    return {"engine": tiny_engine, "detector": square_detector.path, "landmarks": "none", "align": "detect"}


@pytest.fixture(scope="session")
def folder_of_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three people in folders. Tests must not change them."""
    folder = tmp_path_factory.mktemp("people")
    for person in range(3):
        for shot in range(4):
            path = folder / f"person{person}" / f"{shot}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(squares(3, seed=10 * person + shot))
    return folder


@pytest.fixture(scope="session")
def embedded_people(folder_of_people: Path, engines: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding file of these photos. Tests must not change it."""
    path = tmp_path_factory.mktemp("file") / "people.h5"
    options = {name: value for name, value in engines.items() if name != "align"}
    facemill.process(folder_of_people, path, faces=FaceRules("detect", min_iod=0.0, max_fit=1.0), **options)
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The tokens of two clients."""
    path = tmp_path / "tokens.txt"
    path.write_text(f"# clients\n\ngate {TOKEN}\ndesk {OTHER}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def settings(engines: dict[str, Any], embedded_people: Path) -> ServerSettings:
    return ServerSettings(files=(embedded_people,), engines=engines, seconds=300.0)


@pytest.fixture
def client(settings: ServerSettings) -> Client:
    """Open a client of a server with changed settings: `async with client(rate=1.0) as http: ...`"""

    @asynccontextmanager
    async def open_client(
        *,
        headers: dict[str, str] | None = None,
        on_service: Callable[[Service], Any] = lambda service: None,
        **changes: Any,
    ) -> AsyncIterator[httpx.AsyncClient]:
        with Service(replace(settings, **changes)) as service:
            app = make_app(service)
            on_service(service)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers, timeout=60) as http:
                yield http

    return open_client
