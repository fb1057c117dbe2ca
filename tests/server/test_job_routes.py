"""Jobs over HTTP: what a client may start and see, and what is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import TOKEN, Client
from tests.support.photos_of_squares import squares

ANY_FACE = {"min_iod": 0, "max_fit": 1}
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


async def ended(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """Wait until a job has ended."""
    while True:
        facts: dict[str, Any] = (await http.get(f"/api/v1/jobs/{job}")).json()
        if facts["state"] in ("finished", "failed", "stopped", "cancelled"):
            return facts
        await asyncio.sleep(0.1)


async def events_of(http: httpx.AsyncClient, url: str, **headers: str) -> list[tuple[int | None, str]]:
    """The numbers and kinds of the events of a job that is over."""
    response = await http.get(url, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            events.append((int(fields["id"]) if "id" in fields else None, fields["event"]))
    return events


@pytest.mark.slow
def test_a_job_makes_a_file_that_is_searched_at_once(client: Client, folder_of_people: Path, output: Path) -> None:
    body = {"photos": ["person0", str(folder_of_people / "person1")], "output": "two", "options": ANY_FACE}

    async def check() -> None:
        async with client(roots=(folder_of_people,), output=output) as http:
            response = await http.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "a"})
            job = response.json()["id"]
            assert (response.status_code, response.headers["location"]) == (201, f"/api/v1/jobs/{job}"), response.text
            again = await http.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "a"})
            assert (again.status_code, again.json()["id"]) == (200, job)

            facts = await ended(http, job)
            assert facts["state"] == "finished", facts
            assert facts["summary"]["outcomes"] == {"embedded": 8}
            assert (facts["progress"]["done"], facts["progress"]["outcomes"]) == (8, {"embedded": 8})
            while len((await http.get("/api/v1/files")).json()["files"]) < 2:
                await asyncio.sleep(0.1)
            hits = await http.post("/api/v1/search?file=two&k=1", content=squares(3, seed=11), headers=PNG)
            assert hits.json()["hits"][0]["path"] == "person1/1.png"

            events = await events_of(http, f"/api/v1/jobs/{job}/events")
            numbers = [number for number, _ in events if number is not None]
            assert numbers == list(range(1, facts["last_event"] + 1))
            assert events[0][1] == "started"
            assert [kind for _, kind in events][-2:] == ["ended", "state"]
            later = await events_of(http, f"/api/v1/jobs/{job}/events", **{"Last-Event-ID": "3"})
            assert [number for number, _ in later] == [*numbers[3:], None]
            assert later == [event for event in events if event[0] is None or event[0] > 3]
            url = f"/api/v1/jobs/{job}/events?after={facts['last_event']}"
            assert (await http.get(url)).status_code == 204

            assert (await http.post(f"/api/v1/jobs/{job}/pause")).status_code == 409
            taken = await http.post("/api/v1/jobs", json=body)
            assert (taken.status_code, taken.json()["code"]) == (409, "E-EXISTS")
            served = await http.post("/api/v1/jobs", json={**body, "output": "people"})
            assert (served.status_code, served.json()["code"]) == (409, "E-LOCKED")
            assert (await http.delete(f"/api/v1/jobs/{job}")).status_code == 200
            assert (await http.get("/api/v1/jobs")).json() == {"jobs": []}
        # The next server answers for the file of a job that it did not start.
        assert (output / "two.h5").stat().st_mode & 0o777 == 0o600

    asyncio.run(check())


@pytest.mark.slow
def test_failures_are_listed_with_their_reasons(client: Client, folder_of_people: Path, output: Path) -> None:
    root = output.parent / "root"
    root.mkdir()
    for number in range(130):
        (root / f"{number:03}.jpg").write_bytes(b"\xff\xd8\xff no photo")
    for number in range(20):
        os.link(folder_of_people / "person0" / "0.png", root / f"good{number}.png")

    async def check() -> None:
        async with client(roots=(root,), output=output) as http:
            response = await http.post("/api/v1/jobs", json={"photos": ["."], "output": "a.h5", "options": ANY_FACE})
            job = response.json()["id"]
            assert (await ended(http, job))["summary"]["outcomes"] == {"embedded": 20, "corrupt": 130}
            failures = (await http.get(f"/api/v1/jobs/{job}/failures")).json()["failures"]
            assert [failure["path"] for failure in failures] == [f"{n:03}.jpg" for n in range(129, 29, -1)]
            assert {failure["status"] for failure in failures} == {"corrupt"}
            assert all(failure["detail"] for failure in failures)

            retry = {"photos": ["."], "output": "a", "options": {**ANY_FACE, "retry": True}}
            again = (await http.post("/api/v1/jobs", json=retry)).json()["id"]
            facts = await ended(http, again)
            assert (facts["state"], facts["summary"]["processed"]) == ("finished", 130), facts

    asyncio.run(check())


@pytest.mark.slow
def test_a_failed_job_says_why(client: Client, output: Path) -> None:
    root = output.parent / "root"
    (root / "empty").mkdir(parents=True)

    async def check() -> None:
        async with client(roots=(root,), output=output) as http:
            job = (await http.post("/api/v1/jobs", json={"photos": ["empty"], "output": "a"})).json()["id"]
            facts = await ended(http, job)
            assert (facts["state"], facts["error"]["code"]) == ("failed", "E-SOURCE")
            assert str(root / "empty") in facts["error"]["detail"]
            assert (await http.get(f"/api/v1/jobs/{job}/failures")).json() == {"failures": []}
            (root / "empty" / "0.png").write_bytes(squares(3))
            assert (await http.post(f"/api/v1/jobs/{job}/resume")).json()["state"] in ("waiting", "running")
            assert (await ended(http, job))["state"] == "finished"

    asyncio.run(check())


@pytest.mark.slow
def test_a_link_out_of_the_roots_stops_a_job_before_a_photo_is_read(
    client: Client, folder_of_people: Path, output: Path
) -> None:
    root = output.parent / "root"
    root.mkdir()
    (root / "in.png").write_bytes(squares(3))
    (root / "out").symlink_to(folder_of_people / "person0")

    async def check() -> None:
        async with client(roots=(root,), output=output) as http:
            job = (await http.post("/api/v1/jobs", json={"photos": ["."], "output": "a"})).json()["id"]
            facts = await ended(http, job)
            assert (facts["state"], facts["error"]["code"]) == ("failed", "E-ACCESS")
            assert not (output / "a.h5").exists()
            folder = (await http.get("/api/v1/folders", params={"path": str(root)})).json()
            assert (folder["folders"], folder["photos"], folder["parent"]) == ([], 1, None)

    asyncio.run(check())


@pytest.mark.slow
def test_what_a_client_may_not_name_is_refused(client: Client, folder_of_people: Path, output: Path) -> None:
    (output / "link.h5").symlink_to(output.parent / "victim")
    good: dict[str, Any] = {"photos": ["."], "output": "a"}

    async def check() -> None:
        async with client(roots=(folder_of_people,), output=output) as http:
            for change, status in (
                ({"output": "../a"}, 422),
                ({"output": "/tmp/a.h5"}, 422),
                ({"output": ".facemill-jobs"}, 422),
                ({"output": ""}, 422),
                ({"output": "a\n"}, 422),
                ({"output": "a\0b"}, 422),
                ({"output": "link", "options": {"retry": True}}, 403),
                ({"photos": [".."]}, 403),
                ({"photos": ["person0/../../"]}, 403),
                ({"photos": ["/etc"]}, 403),
                ({"photos": ["@/etc/passwd"]}, 403),
                ({"photos": ["a\0"]}, 403),
                ({"photos": []}, 422),
                ({"photos": "."}, 422),
                ({"options": {"model": "/etc/passwd.toml"}}, 422),
                ({"options": {"force": True}}, 422),
                ({"options": {"min_score": "high"}}, 422),
                ({"options": {"limit": 0}}, 422),
                ({"force": True}, 400),
            ):
                for route in "jobs", "jobs/plan":
                    response = await http.post(f"/api/v1/{route}", json={**good, **change})
                    assert response.status_code == status, (change, response.text)
                    assert response.headers["content-type"] == "application/problem+json"
            for job in ("no", "..", "%2e%2e%2f", "20261129-224732-d41c9bcc", "a" * 3000, "%00"):
                for method, path in (
                    ("GET", ""), ("GET", "/events"), ("GET", "/failures"), ("POST", "/pause"), ("DELETE", ""),
                ):  # fmt: skip
                    response = await http.request(method, f"/api/v1/jobs/{job}{path}")
                    assert response.status_code in (404, 405), (job, response.text)
            for path in ("/etc", "..", "person0/..", str(folder_of_people.parent), "no such"):
                assert (await http.get("/api/v1/folders", params={"path": path})).status_code == 403
            folders = (await http.get("/api/v1/folders", params={"path": str(folder_of_people)})).json()
            assert [folder["name"] for folder in folders["folders"]] == ["person0", "person1", "person2"]
            assert (await http.get("/api/v1/jobs")).json() == {"jobs": []}
        assert sorted(os.listdir(output)) == [".facemill-jobs", "link.h5"]

        async with client() as http:  # a server without --output and --photos
            assert (await http.post("/api/v1/jobs", json=good)).status_code == 403
            assert (await http.get("/api/v1/jobs")).json() == {"jobs": []}
            assert (await http.get("/api/v1/folders")).json()["folders"] == []

    asyncio.run(check())


@pytest.mark.slow
def test_jobs_need_the_token_of_a_client(
    client: Client, folder_of_people: Path, output: Path, token_file: Path
) -> None:
    async def check() -> None:
        async with client(roots=(folder_of_people,), output=output, token_file=token_file) as http:
            for method, path in (("GET", "jobs"), ("POST", "jobs"), ("GET", "folders"), ("GET", "jobs/x/events")):
                assert (await http.request(method, f"/api/v1/{path}")).status_code == 401
            body = {"photos": ["person2"], "output": "a", "options": ANY_FACE}
            headers = {"Authorization": f"Bearer {TOKEN}"}
            job = (await http.post("/api/v1/jobs", json=body, headers=headers)).json()
            assert job["client"] == "gate"
            http.headers.update(headers)
            assert (await ended(http, job["id"]))["state"] == "finished"

    asyncio.run(check())


@pytest.mark.slow
def test_a_job_is_planned_before_its_start(client: Client, folder_of_people: Path, output: Path) -> None:
    async def check() -> None:
        async with client(roots=(folder_of_people,), output=output) as http:
            body = {"photos": ["person1", "person2"], "output": "a", "options": {"dtype": "float16"}}
            first, second = await asyncio.gather(
                http.post("/api/v1/jobs/plan", json=body), http.post("/api/v1/jobs/plan", json=body)
            )
            assert sorted([first.status_code, second.status_code]) == [200, 429]
            plan = max(first, second, key=lambda response: response.status_code == 200).json()
            assert (plan["photographs"], plan["fits"], plan["dimension"]) == (8, True, 16)
            assert {plan[name]["unit"] for name in ("disk", "disk_running", "memory")} == {"bytes"}
            assert plan["time"]["value"] > 0
            problem = (await http.post("/api/v1/jobs/plan", json={**body, "options": {"include": ["*.gif"]}})).json()
            assert problem["code"] == "E-SOURCE"
        assert os.listdir(output) == [".facemill-jobs"]

    asyncio.run(check())
