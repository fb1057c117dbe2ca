"""Who may ask: hosts, origins, tokens, rates; and what the journal says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from runtime.errors import ConfigError, OptionError
from runtime.server.guard import RateLimit, Tokens
from runtime.server.settings import ServerSettings, is_loopback, path_below
from tests.server.conftest import OTHER, TOKEN, Client
from tests.support.errors import raises
from tests.support.photos_of_squares import squares

PNG = {"Content-Type": "image/png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8420", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8420", 200),
        ("192.168.1.5:8420", 200),
        ("faces.example.org", 200),
        ("evil.example.org", 403),
        ("127.0.0.1.evil.org", 403),
        ("localhost.evil.org", 403),
        ("", 403),
        ("faces.example.org@evil.org", 403),
    ],
)
def test_only_hosts_of_this_server_are_answered(client: Client, host: str, status: int) -> None:
    async def check() -> None:
        async with client(names=("faces.example.org",)) as http:
            response = await http.get("/api/v1/files", headers={"Host": host})
            assert response.status_code == status
            health = await http.get("/api/v1/health/live", headers={"Host": host})
            assert health.status_code == status

    asyncio.run(check())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:8420"}, 200),
        ({"Origin": "https://127.0.0.1:8420"}, 200),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://evil.example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_origins_are_refused(client: Client, headers: dict[str, str], status: int) -> None:
    async def check() -> None:
        async with client() as http:
            response = await http.post("/api/v1/detect", content=squares(3), headers={**PNG, **headers})
            assert response.status_code == status
            if status == 403:
                assert response.json()["code"] == "E-ACCESS"
            assert response.headers["content-security-policy"].startswith("default-src 'self'")
            assert "access-control-allow-origin" not in response.headers

    asyncio.run(check())


@pytest.mark.slow
def test_with_a_file_of_tokens_only_its_clients_are_answered(client: Client, token_file: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"

    async def check() -> None:
        async with client(token_file=token_file, audit=audit) as http:
            for headers, status in (
                ({"Authorization": f"Bearer {TOKEN}"}, 200),
                ({"authorization": f"bearer {OTHER}"}, 200),
                ({"x-api-key": TOKEN}, 200),
                ({}, 401),
                ({"Authorization": "Bearer "}, 401),
                ({"Authorization": f"Basic {TOKEN}"}, 401),
                ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
                ({"x-api-key": "gate"}, 401),
            ):
                response = await http.post("/api/v1/search", content=squares(3), headers={**PNG, **headers})
                assert response.status_code == status, headers
                if status == 401:
                    assert (response.json()["code"], response.headers["www-authenticate"]) == ("E-ACCESS", "Bearer")
            assert (await http.get("/metrics")).status_code == 401
            for path in ("/api/v1/health/live", "/api/v1/health/ready", "/docs", "/openapi.json"):
                assert (await http.get(path)).status_code == 200

    asyncio.run(check())
    assert oct(audit.stat().st_mode & 0o777) == "0o600"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["client"], line["status"]) for line in lines[:4]] == [
        ("gate", 200),
        ("desk", 200),
        ("gate", 200),
        ("-", 401),
    ]
    assert {line["file"] for line in lines[:3]} == {"people"}
    assert set(lines[0]) == {"time", "client", "address", "method", "route", "file", "status"}
    assert TOKEN not in audit.read_text()


@pytest.mark.parametrize(
    ("content", "mode", "named"),
    [
        ("", 0o600, "no token"),
        ("gate\n", 0o600, "line 1"),
        ("gate short\n", 0o600, "16 characters"),
        (f"gate {TOKEN}\ngate {OTHER}\n", 0o600, "line 2"),
        (f"gate {TOKEN}\n", 0o644, "chmod o-rw"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused(tmp_path: Path, content: str, mode: int, named: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(content)
    path.chmod(mode)
    with raises(ConfigError, path, named):
        Tokens.read(path)
    with raises(ConfigError, "missing.txt"):
        Tokens.read(tmp_path / "missing.txt")


def test_an_address_of_other_machines_needs_tokens(token_file: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "faces.example.org"):
        with raises(OptionError, host, "--token-file", "--insecure"):
            ServerSettings(host=host)
        ServerSettings(host=host, token_file=token_file)
        ServerSettings(host=host, insecure=True)
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert is_loopback(host)
        ServerSettings(host=host)


def test_files_and_roots_are_checked(tmp_path: Path) -> None:
    with raises(ConfigError, "people"):
        ServerSettings(files=(tmp_path / "a" / "people.h5", tmp_path / "b" / "people.h5"))
    with raises(ConfigError, tmp_path / "missing"):
        ServerSettings(roots=(tmp_path / "missing",))


def test_each_client_has_its_own_rate() -> None:
    limit = RateLimit(2.0)
    assert [limit.wait_s("a", 0.0) for _ in range(3)] == [0, 0, 0.5]
    assert limit.wait_s("b", 0.0) == 0
    assert limit.wait_s("a", 0.5) == 0
    assert limit.wait_s("a", 0.6) == pytest.approx(0.4)
    assert [RateLimit(0.0).wait_s("a", 0.0) for _ in range(5)] == [0] * 5


@pytest.mark.slow
def test_a_client_over_its_rate_is_told_when_to_come_back(client: Client, token_file: Path) -> None:
    async def check() -> None:
        async with client(token_file=token_file, rate=0.001, headers={"x-api-key": TOKEN}) as http:
            assert (await http.get("/api/v1/files")).status_code == 200
            response = await http.get("/api/v1/files")
            assert (response.status_code, response.json()["code"]) == (429, "E-BUSY")
            assert int(response.headers["retry-after"]) > 1
            assert (await http.get("/api/v1/files", headers={"x-api-key": OTHER})).status_code == 200
            assert (await http.get("/api/v1/health/ready")).status_code == 200

    asyncio.run(check())


def test_paths_lead_below_the_roots_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "photos", tmp_path / "photos-of-others"
    for folder in (root / "a", outside):
        folder.mkdir(parents=True)
        (folder / "1.jpg").touch()
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "a")
    for name in ("a", "a/1.jpg", str(root / "a"), ".", "in/1.jpg", "a/../a"):
        path = path_below((root,), name)
        assert path is not None, name
        assert path.is_relative_to(root)
    for name in ("..", "../photos-of-others", "out", "out/1.jpg", str(outside), "/etc/passwd", "missing", "a\0b", ""):
        assert path_below((root,), name) is None or name == "", name
    assert path_below((), str(root)) is None
