"""Jobs outlive the server, and go on after `kill -9` of the server, of the job, or of both."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import runtime as facemill
from runtime.faces.rules import FaceRules
from tests.support import running_jobs
from tests.support.encoded_images import encode
from tests.support.interrupted_runs import assert_same_file
from tests.support.red_square_detector import picture
from tests.support.running_jobs import kill_jobs, worker_of
from tests.support.running_server import ask, ask_json, engine_options, server

pytestmark = pytest.mark.slow

PHOTOS = 600  # more than the stages of a run hold
OPTIONS = {"min_iod": 0, "max_fit": 1, "workers": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a face each, and one that is damaged. Tests must not change them."""
    folder = tmp_path_factory.mktemp("root")
    for number in range(8):
        path = folder / f"{number:03}.png"
        path.write_bytes(encode(picture(160, 240, (40, 40, 60), seed=number), "PNG"))
        for copy in range(1, PHOTOS // 8):
            os.link(path, folder / f"{number + 8 * copy:03}.png")
    (folder / "050.png").unlink()
    (folder / "050.png").write_bytes(b"\xff\xd8\xff no photo")
    return folder


@pytest.fixture(scope="module")
def expected(root: Path, engines: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an undisturbed run."""
    path = tmp_path_factory.mktemp("expected") / "people.h5"
    chosen = {name: value for name, value in engines.items() if name != "align"}
    facemill.process(root, path, faces=FaceRules("detect", min_iod=0.0, max_fit=1.0), batch_size=4, **chosen)
    return path


@dataclass
class Place:
    """Where servers of a test find photos and put files."""

    root: Path
    output: Path
    engines: dict[str, Any]

    def server(self, *more: object) -> Any:
        """A server, as a context manager that kills it at its end."""
        folders = ("--photos", self.root, "--output", self.output, "--segment-rows", 16, "--segment-seconds", 0.2)
        audit = ("--audit", os.devnull)  # else it would fill the pipe that nobody reads
        return server(*engine_options(self.engines), *folders, *audit, *more)

    def worker(self, job: str) -> int | None:
        """The process of a job; None without one."""
        return worker_of(self.output / ".facemill-jobs" / job)


@pytest.fixture
def place(root: Path, engines: dict[str, Any], tmp_path: Path) -> Iterator[Place]:
    place = Place(root, tmp_path / "files", engines)
    place.output.mkdir()
    yield place
    kill_jobs(place.output)


def held(place: Place, job: str) -> AbstractContextManager[int]:
    return running_jobs.held(place.output / ".facemill-jobs" / job, place.output / "people.h5")


def start(port: int, **more: Any) -> str:
    status, job = ask_json(
        port, "POST", "/api/v1/jobs", {"photos": ["."], "output": "people", "options": OPTIONS, **more}
    )
    assert status == 201, job
    return str(job["id"])


def wait_until(port: int, job: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(2400):
        status, facts = ask_json(port, "GET", f"/api/v1/jobs/{job}")
        assert status == 200, facts
        if holds(facts):
            return dict(facts)
        time.sleep(0.05)
    raise AssertionError(f"the job is {facts}")


def wait_for(port: int, job: str, *states: str) -> dict[str, Any]:
    return wait_until(port, job, lambda facts: facts["state"] in states)


def follow(
    port: int, job: str, *, after: int = 0, until: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """Follow the events of a job like a browser, until they satisfy a condition or end."""
    events: list[dict[str, Any]] = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        headers = {"Last-Event-ID": str(after)} if after else {}
        connection.request("GET", f"/api/v1/jobs/{job}/events", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        fields: dict[str, Any] = {}
        while line := response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                events.append({"id": int(fields.get("id", 0)), "event": fields["event"], **json.loads(fields["data"])})
                fields = {}
                if until(events):
                    break
    return events


def test_a_job_is_paused_resumed_and_followed_from_any_event_on(place: Place, expected: Path) -> None:
    with place.server() as (_, port):
        job = start(port)
        with held(place, job):
            seen = follow(port, job, until=lambda events: events[-1]["event"] == "state")
            assert ask_json(port, "POST", f"/api/v1/jobs/{job}/pause")[1]["state"] == "pausing"
        paused = wait_for(port, job, "paused")
        assert 0 < paused["progress"]["done"] < PHOTOS
        assert place.worker(job) is None  # its memory is free
        assert ask_json(port, "POST", f"/api/v1/jobs/{job}/resume")[1]["state"] in ("waiting", "running")
        # The page is loaded again: what it saw last is where it goes on.
        seen += follow(port, job, after=max(event["id"] for event in seen), until=lambda events: False)
        facts = wait_for(port, job, "finished")
        numbered = [event["id"] for event in seen if event["id"]]
        assert numbered == list(range(1, facts["last_event"] + 1))
        assert [event["state"] for event in seen if event["event"] == "ended"] == ["paused", "finished"]
        done = [event["done"] for event in seen if event["event"] == "progress"]
        assert done == sorted(done)  # outcomes of before the pause count
        last = [event for event in seen if event["event"] == "progress"][-1]
        assert last["outcomes"] == {"embedded": PHOTOS - 1, "corrupt": 1}
        assert facts["summary"]["processed"] < PHOTOS
        elapsed = [event["elapsed_s"] for event in seen if event["event"] == "progress"]
        assert elapsed == sorted(elapsed)
    assert_same_file(place.output / "people.h5", expected)


def test_a_job_outlives_its_server(place: Place, expected: Path) -> None:
    with place.server() as (process, port):
        job = start(port)
        with held(place, job) as worker:
            assert os.getsid(worker) == worker  # no signal of a terminal reaches it
            os.kill(worker, signal.SIGHUP)
            process.kill()
            process.wait()
            assert place.worker(job) == worker
    with place.server() as (process, port):
        facts = wait_for(port, job, "running", "finished")
        assert [each["id"] for each in ask_json(port, "GET", "/api/v1/jobs")[1]["jobs"]] == [job]
        seen = follow(port, job, after=facts["last_event"] - 1, until=lambda events: False)
        assert seen[-1]["state"] == "finished"
        wait_until(port, job, lambda _: bool(ask_json(port, "GET", "/api/v1/files")[1]["files"]))
        process.terminate()
        assert process.wait(300) == 0
    assert_same_file(place.output / "people.h5", expected)
    events = (place.output / ".facemill-jobs" / job / "events.jsonl").read_text()
    assert events.count('"started"') == 1


def test_after_kill_of_server_and_job_the_next_server_resumes(place: Place, expected: Path) -> None:
    with place.server() as (process, port):
        job = start(port)
        with held(place, job) as worker:
            process.kill()
            os.kill(worker, signal.SIGKILL)
    with place.server() as (_, port):
        facts = wait_for(port, job, "finished")
        assert facts["summary"]["processed"] < PHOTOS
        assert facts["progress"]["outcomes"] == {"embedded": PHOTOS - 1, "corrupt": 1}
        failures = ask_json(port, "GET", f"/api/v1/jobs/{job}/failures")[1]["failures"]
        assert [failure["path"] for failure in failures] == ["050.png"]
    assert_same_file(place.output / "people.h5", expected)


def test_a_killed_job_goes_on_by_itself_and_one_that_dies_at_once_does_not_for_ever(
    place: Place, expected: Path
) -> None:
    with place.server() as (_, port):
        job = start(port)
        with held(place, job) as worker:
            os.kill(worker, signal.SIGKILL)
        wait_until(port, job, lambda _: place.worker(job) not in (None, worker))
        assert wait_for(port, job, "finished", "failed")["state"] == "finished"
        assert_same_file(place.output / "people.h5", expected)

        # Killed before its first photo, as if memory were short.
        second = start(port, output="other")
        killed = 0
        while ask_json(port, "GET", f"/api/v1/jobs/{second}")[1]["state"] != "failed":
            if (worker := place.worker(second)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                killed += 1
            time.sleep(0.02)
        assert killed >= 3
        assert "memory" in ask_json(port, "GET", f"/api/v1/jobs/{second}")[1]["error"]["detail"]
        ask_json(port, "POST", f"/api/v1/jobs/{second}/resume")
        assert wait_for(port, second, "finished", "failed")["state"] == "finished"


def test_jobs_wait_for_each_other_and_are_cancelled(place: Place) -> None:
    with place.server() as (_, port):
        first, second, third = (start(port, output=name) for name in ("people", "b", "c"))
        wait_for(port, first, "running")
        assert ask_json(port, "POST", f"/api/v1/jobs/{third}/cancel")[1]["state"] == "cancelled"
        assert ask_json(port, "GET", f"/api/v1/jobs/{second}")[1]["state"] == "waiting"
        with held(place, first):
            assert ask_json(port, "POST", f"/api/v1/jobs/{first}/cancel")[1]["state"] == "stopping"
        wait_for(port, second, "running")
        assert ask_json(port, "GET", f"/api/v1/jobs/{first}")[1]["state"] == "cancelled"
        assert (place.output / "people.h5.parts").is_dir()  # nothing is lost until somebody says so
        assert ask_json(port, "DELETE", f"/api/v1/jobs/{first}")[0] == 200
        assert not (place.output / "people.h5.parts").exists()
        assert ask_json(port, "DELETE", f"/api/v1/jobs/{second}")[0] == 409
        assert ask(port, "GET", f"/api/v1/jobs/{third}/events")[0] == 204  # nothing happened, and nothing will
        ask_json(port, "POST", f"/api/v1/jobs/{second}/cancel")
        wait_for(port, second, "cancelled")


def test_two_servers_share_a_folder_of_jobs(place: Place, expected: Path) -> None:
    with place.server() as (process, port), place.server() as (_, other):
        job = start(port)
        status, problem = ask_json(other, "POST", "/api/v1/jobs", {"photos": ["."], "output": "people"})
        assert (status, problem["code"]) == (409, "E-LOCKED")
        wait_for(other, job, "running")
        with held(place, job):
            process.kill()  # the one that started the process, or not
            ask_json(other, "POST", f"/api/v1/jobs/{job}/pause")
        wait_for(other, job, "paused")
        ask_json(other, "POST", f"/api/v1/jobs/{job}/resume")
        wait_for(other, job, "finished")
    events = (place.output / ".facemill-jobs" / job / "events.jsonl").read_text()
    assert events.count('"started"') == 2
    assert_same_file(place.output / "people.h5", expected)


def test_a_job_that_a_signal_stopped_is_resumed_by_the_next_server(place: Place, expected: Path) -> None:
    with place.server() as (process, port):
        job = start(port)
        with held(place, job) as worker:
            os.kill(worker, signal.SIGTERM)  # as systemd does when the machine goes down
        facts = wait_for(port, job, "stopped")
        assert "SIGTERM" in facts["error"]["detail"]
        process.terminate()
        assert process.wait(300) == 0
    with place.server() as (_, port):
        wait_for(port, job, "finished")
    assert_same_file(place.output / "people.h5", expected)


def test_a_full_disk_stops_a_job_with_its_reason(place: Place, expected: Path) -> None:
    with place.server() as (process, port):
        limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        # As if the disk were full. The process of the job inherits the limit; segments are larger, and notes are not.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8000, limits[1]))
        job = start(port)
        facts = wait_for(port, job, "failed", "finished")
        assert (facts["state"], facts["error"]["code"]) == ("failed", "E-DISK-FULL")
        assert "space" in facts["error"]["detail"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        ask_json(port, "POST", f"/api/v1/jobs/{job}/resume")
        assert wait_for(port, job, "failed", "finished")["state"] == "finished"
    assert_same_file(place.output / "people.h5", expected)


def test_a_server_ends_although_clients_follow_a_job(place: Place) -> None:
    with place.server() as (process, port):
        job = start(port)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
            connection.request("GET", f"/api/v1/jobs/{job}/events")
            response = connection.getresponse()
            assert response.readline() == b"retry: 2000\n"
            process.terminate()
            response.read()  # to the end
        assert process.wait(300) == 0
        assert place.worker(job) is not None


def test_too_many_clients_that_follow_are_refused(place: Place) -> None:
    with place.server() as (_, port):
        job = start(port)
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=300) for _ in range(33)]
        try:
            statuses = []
            for connection in connections:
                connection.request("GET", f"/api/v1/jobs/{job}/events")
                response = connection.getresponse()
                statuses.append(response.status)
                if response.status == 200:
                    response.readline()  # it has begun
        finally:
            for connection in connections:
                connection.close()
        assert statuses == [200] * 32 + [429]
        follow(port, job, until=lambda events: len(events) > 1)  # places are free again
