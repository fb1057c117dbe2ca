"""Bodies of strangers: wrong, half, slow, huge. Each has its problem, and the server goes on."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

import runtime as facemill
from runtime.server.app import make_app
from runtime.server.service import Service
from runtime.server.settings import ServerSettings
from runtime.web.routes import page_routes
from tests.server.conftest import Client
from tests.support.photos_of_squares import squares

MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}


def part(name: str, content: bytes, boundary: bytes = b"b", filename: str = "a.png") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'.encode()
    return b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


WRONG: list[tuple[str, dict[str, str], bytes, int]] = [
    ("no type", {}, squares(3), 415),
    ("text", {"Content-Type": "text/plain"}, b"hello", 415),
    ("form", {"Content-Type": "application/x-www-form-urlencoded"}, b"photo=1", 415),
    ("gif type", {"Content-Type": "image/gif"}, b"GIF89a", 415),
    ("compressed", {"Content-Type": "image/png", "Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
    ("no boundary", {"Content-Type": "multipart/form-data"}, part("photo", b"1") + b"--b--\r\n", 400),
    ("another boundary", MULTIPART, part("photo", b"1", b"c") + b"--c--\r\n", 400),
    ("half of a part", MULTIPART, part("photo", squares(3))[:300], 400),
    ("no end", MULTIPART, part("photo", squares(3)), 400),
    ("another name", MULTIPART, part("picture", b"1") + b"--b--\r\n", 400),
    ("twice", MULTIPART, part("photo", b"1") * 2 + b"--b--\r\n", 400),
    ("many parts", MULTIPART, part("photo", b"1") * 50 + b"--b--\r\n", 400),
    ("a field", MULTIPART, b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\n1\r\n--b--\r\n', 400),
    ("empty part", MULTIPART, part("photo", b"") + b"--b--\r\n", 400),
    ("no JSON", JSON, b"{", 400),
    ("a list", JSON, b"[]", 400),
    ("deep", JSON, b"[" * 100_000, 400),
    ("no photo", JSON, b"{}", 400),
    ("a number", JSON, b'{"photo": 7}', 400),
    ("no Base64", JSON, b'{"photo": "#"}', 400),
    ("other key", JSON, b'{"photo": "aaaa", "url": "http://example.org/a.jpg"}', 400),
    ("no picture", {"Content-Type": "image/jpeg"}, b"no picture", 422),
    ("script", {"Content-Type": "image/png"}, b"<svg onload=alert(1)>", 422),
]


@pytest.mark.slow
def test_wrong_bodies_are_problems_and_none_stays_in_memory(client: Client) -> None:
    async def check() -> None:
        services: list[Service] = []
        async with client(on_service=services.append) as http:
            for title, headers, body, status in WRONG:
                response = await http.post("/api/v1/recognition", content=body, headers=headers)
                assert response.status_code == status, (title, response.text)
                assert response.headers["content-type"] == "application/problem+json", title
            one = await http.post("/api/v1/compare", content=squares(3), headers={"Content-Type": "image/png"})
            assert one.status_code == 415
            half = await http.post("/api/v1/compare", files={"a": squares(3)})
            assert (half.status_code, "'b'" in half.json()["detail"]) == (400, True)
            assert services[0].bodies._held == 0

    asyncio.run(check())


@pytest.mark.slow
def test_a_large_upload_never_touches_the_disk(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda *args, **values: made.append(args))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *args, **values: made.append(args))

    async def check() -> None:
        async with client() as http:
            response = await http.post("/api/v1/detect", files={"photo": bytes(3 << 20)})
            assert response.status_code == 422

    asyncio.run(check())
    assert made == []


@pytest.mark.slow
def test_a_body_over_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    async def check() -> None:
        limits = facemill.Limits(max_bytes=1000)
        async with client(limits=limits) as http:
            sent = []

            async def endless() -> AsyncIterator[bytes]:
                while True:
                    sent.append(1)
                    yield bytes(10_000)

            response = await http.post("/api/v1/detect", content=endless(), headers={"Content-Type": "image/png"})
            assert (response.status_code, len(sent) < 20) == (413, True)
            stated = {"Content-Type": "image/png", "Content-Length": str(10**12)}
            response = await http.post("/api/v1/detect", content=b"", headers=stated)
            assert response.status_code == 413

    asyncio.run(check())


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/v1/detect", "/login"])
def test_a_body_that_does_not_come_is_given_up(settings: ServerSettings, path: str) -> None:
    async def check() -> None:
        async def slow() -> AsyncIterator[bytes]:
            yield b"token"
            await asyncio.sleep(60)

        with Service(replace(settings, seconds=0.2)) as service:
            transport = httpx.ASGITransport(make_app(service, [page_routes]))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as http:
                response = await http.post(path, content=slow(), headers={"Content-Type": "image/png"})
                assert (response.status_code, response.json()["code"]) == (408, "E-REQUEST")

    asyncio.run(asyncio.wait_for(check(), 30))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "path"),
    [
        ("in the body", "/api/v1/recognition"),
        ("before the answer", "/api/v1/recognition"),
        ("in the body", "/login"),
    ],
)
def test_a_client_that_hangs_up_leaves_nothing_behind(settings: ServerSettings, when: str, path: str) -> None:
    async def check() -> None:
        with Service(settings) as service:
            app = make_app(service, [page_routes])
            messages: list[dict[str, Any]] = [
                {
                    "type": "http.request",
                    "body": b"half" if when == "in the body" else squares(3),
                    "more_body": when == "in the body",
                },
                {"type": "http.disconnect"},
            ]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop(0)
                await asyncio.sleep(3600)
                raise AssertionError

            statuses = []

            async def send(message: Any) -> None:
                statuses.extend([message["status"]] if "status" in message else [])

            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"image/png")],
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 8420),
                "state": {},
            }
            await app(scope, receive, send)
            assert statuses == [499]
            assert (service.bodies._held, service.room.state.waiting) == (0, 0)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                metrics = (await http.get("/metrics")).text
            assert f'facemill_requests_total{{route="{path}",status="499"}} 1.0' in metrics

    asyncio.run(check())
