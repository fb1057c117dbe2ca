"""Photos are added to a file and removed from it while it is searched; only photos below the roots."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import runtime as facemill
from runtime.attributes.selection import AttributeFilter
from runtime.images.decode import Limits
from runtime.search.answers import Answer
from runtime.search.embedder import Embedding, PhotoEmbedder
from runtime.search.hits import FindOptions
from runtime.server.app import make_app
from runtime.server.open_files import Opened, OpenFile, SharedEmbedders
from runtime.server.service import Service
from runtime.server.settings import ServerSettings
from runtime.web.routes import page_routes
from tests.server.conftest import Client
from tests.support.photos_of_squares import squares

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def own(embedded_people: Path, folder_of_people: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the file, and a folder of further photos beside those of the file."""
    path = tmp_path / "people.h5"
    shutil.copy(embedded_people, path)
    new = tmp_path / "new"
    new.mkdir()
    for number in range(2):
        (new / f"{number}.png").write_bytes(squares(3, seed=100 + number))
    return path, new


async def best(http: Any, seed: int) -> tuple[str, float, int]:
    """The best hit of a photo: its path, its score, and the rows of the file."""
    answer = (await http.post("/api/v1/search?k=1", content=squares(3, seed=seed), headers=PNG)).json()
    rows = (await http.get("/api/v1/files")).json()["files"][0]["rows"]
    return answer["hits"][0]["path"], answer["hits"][0]["score"], rows


@pytest.mark.slow
def test_added_and_removed_photos_are_seen_by_the_next_search(client: Client, own: tuple[Path, Path]) -> None:
    path, new = own

    async def check() -> None:
        async with client(files=(path,), roots=(new,)) as http:
            assert (await best(http, 101))[1] < 0.999
            key = {"Idempotency-Key": "first"}
            response = await http.post("/api/v1/files/people/add", json={"photos": ["."]}, headers=key)
            added = response.json()
            assert (response.status_code, added["added"], added["file"]) == (200, 2, "people"), added
            name, score, rows = await best(http, 101)
            assert (name.endswith("new/1.png"), round(score, 4), rows) == (True, 1.0, 14)

            again = await http.post("/api/v1/files/people/add", json={"photos": ["."]}, headers=key)
            assert again.json() == added
            other = await http.post("/api/v1/files/people/add", json={"photos": ["0.png"]}, headers=key)
            assert other.status_code == 422
            known = (await http.post("/api/v1/files/people/add", json={"photos": [str(new / "0.png")]})).json()
            assert (known["added"], known["known"]) == (0, 1)

            response = await http.post(
                "/api/v1/files/people/remove", json={"names": [name]}, headers=key | {"Idempotency-Key": "second"}
            )
            receipt = response.json()["receipt"]
            assert (response.status_code, receipt["removed_photographs"]) == (200, 1), response.text
            after, score, rows = await best(http, 101)
            assert (after != name, rows) == (True, 13)
            unknown = await http.post("/api/v1/files/people/remove", json={"names": ["nobody.png"]})
            assert (unknown.status_code, unknown.json()["code"]) == (422, "E-CONFIG")

    asyncio.run(check())
    with facemill.open(path) as file:
        assert file.rows == 13


@pytest.mark.slow
def test_a_folder_is_searched_once(client: Client, own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = own
    seen, scandir = list[str](), os.scandir

    def count(folder: Any = ".") -> Any:
        seen.append(os.fsdecode(folder) if not isinstance(folder, int) else "")
        return scandir(folder)

    async def check() -> None:
        async with client(files=(path,), roots=(new,)) as http:
            monkeypatch.setattr(os, "scandir", count)
            response = await http.post("/api/v1/files/people/add", json={"photos": ["."]})
            assert (response.status_code, response.json()["added"]) == (200, 2), response.text

    asyncio.run(check())
    assert seen.count(str(new)) == 1


@pytest.mark.slow
def test_photos_outside_the_roots_are_not_read(client: Client, own: tuple[Path, Path], tmp_path: Path) -> None:
    path, new = own
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "9.png").write_bytes(squares(3, seed=900))
    (new / "link.png").symlink_to(outside / "9.png")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "folder").symlink_to(outside)
    before = path.read_bytes()

    async def check() -> None:
        async with client(files=(path,), roots=(new, linked)) as http:
            for name in (str(outside), "../outside", "/etc", ".", "link.png", str(linked), "folder", "@list.txt", "no"):
                response = await http.post("/api/v1/files/people/add", json={"photos": [name]})
                assert (response.status_code, response.json()["code"]) == (403, "E-ACCESS"), name
                assert name == str(outside) or str(outside) not in response.text, name  # where a link leads to
        async with client(files=(path,)) as http:
            response = await http.post("/api/v1/files/people/add", json={"photos": [str(new)]})
            assert response.status_code == 403

    asyncio.run(check())
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("nobody/add", {"photos": ["a"]}, 404),
        ("people/add", {"photos": []}, 422),
        ("people/add", {"photos": "a"}, 422),
        ("people/add", {"photos": [""]}, 422),
        ("people/add", {"photos": ["a\0b"]}, 422),
        ("people/add", {}, 422),
        ("people/add", {"photos": ["a"], "force": True}, 400),
        ("people/add", {"photos": ["a"], "retry": "yes"}, 422),
        ("people/remove", {"names": [7]}, 422),
        ("people/add?retry=true", {"photos": ["a"]}, 422),
        ("..%2Fpeople/add", {"photos": ["a"]}, 404),
    ],
)
def test_wrong_changes_are_problems(client: Client, route: str, body: dict[str, Any], status: int) -> None:
    async def check() -> None:
        async with client() as http:
            response = await http.post(f"/api/v1/files/{route}", json=body)
            assert response.status_code == status, response.text
            assert response.headers["content-type"] == "application/problem+json"

    asyncio.run(check())


@pytest.mark.slow
def test_a_file_that_another_process_changes_is_opened_again(client: Client, own: tuple[Path, Path]) -> None:
    path, new = own

    async def check() -> None:
        async with client(files=(path,)) as http:
            assert (await best(http, 100))[2] == 12
            await asyncio.to_thread(facemill.add, path, new)
            name, score, rows = await best(http, 100)
            assert (name.endswith("new/0.png"), round(score, 4), rows) == (True, 1.0, 14)
            path.rename(path.with_name("away.h5"))
            response = await http.post("/api/v1/search", content=squares(3), headers=PNG)
            assert (response.status_code, response.json()["code"]) == (500, "E-STORAGE")

    asyncio.run(check())


@pytest.mark.slow
def test_one_change_of_a_file_runs_at_a_time(client: Client, own: tuple[Path, Path]) -> None:
    path, new = own

    async def check() -> None:
        async with client(files=(path,), roots=(new,)) as http:
            requests = [http.post("/api/v1/files/people/add", json={"photos": ["."]}) for _ in range(3)]
            responses = await asyncio.gather(*requests)
            assert sorted(response.status_code for response in responses) == [200, 409, 409]
            codes = {response.json().get("code") for response in responses}
            assert codes == {None, "E-LOCKED"}

    asyncio.run(check())


@pytest.mark.slow
def test_a_search_sees_what_was_removed_while_its_photo_was_embedded(own: tuple[Path, Path]) -> None:
    path, _ = own
    with SharedEmbedders(Limits(), 100) as embedders, OpenFile(path, embedders) as file:

        def embed(embedder: PhotoEmbedder) -> list[Embedding]:
            queries = embedder.embed([squares(3, seed=11)])
            facemill.remove(path, "person1/")
            return queries

        def find(opened: Opened, queries: list[Embedding]) -> list[Answer]:
            return opened.find(queries, FindOptions(k=100), AttributeFilter())

        with file.use() as before:
            (answer,) = file.embed_and_find(embed, find)
            assert before.search.file.rows == 12  # whoever uses it still reads the file that it opened
    assert len(answer.hits) == 8
    assert not [hit.path for hit in answer.hits if hit.path.startswith("person1/")]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_file_that_cannot_be_used_takes_no_other_away(
    settings: ServerSettings, own: tuple[Path, Path], embedded_people: Path, damage: str
) -> None:
    other = own[0].with_name("other.h5")
    shutil.copy(own[0], other)
    away = own[0].with_name("away")

    async def check() -> None:
        with Service(replace(settings, files=(own[0], other))) as service:
            transport = httpx.ASGITransport(make_app(service, [page_routes]))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as http:
                other.rename(away)
                if damage == "damaged":
                    other.write_bytes(b"no file of embeddings")
                people, unusable = (await http.get("/api/v1/files")).json()["files"]
                assert (people["name"], people["rows"], "error" in people) == ("people", 12, False)
                assert (unusable["name"], unusable["error"][:11]) == ("other", "E-STORAGE: ")
                assert str(other) in unusable["error"]
                for path in ("/files", "/recognise", "/same", "/people"):
                    page = await http.get(path)
                    assert page.status_code == 200, path
                    assert "annot be used: E-STORAGE: " in page.text, path
                    assert 'value="other"' not in page.text, path
                    assert ('value="people"' in page.text) == (path != "/files"), path
                search = await http.post("/api/v1/search?file=people", content=squares(3, seed=1), headers=PNG)
                assert search.status_code == 200
                own[0].unlink()
                for path in ("/files", "/recognise", "/same", "/people"):
                    page = await http.get(path)
                    assert (page.status_code, page.text.count("annot be used: E-STORAGE: ")) == (200, 2), path
                os.replace(away, other)
                assert (await http.get("/api/v1/files")).json()["files"][1]["rows"] == 12

    asyncio.run(check())
