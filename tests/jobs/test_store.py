"""Jobs in their folder: what is stored, what is refused, and what a job is found to be."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import ConfigError, LockedError, OutputExistsError, RequestError, StorageError
from runtime.jobs.job import Job
from runtime.jobs.request import JobOptions, JobRequest, engines_of
from runtime.jobs.store import JobStore
from runtime.storage.runfolder import RunFolder, folder_of
from tests.support.errors import raises


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def request_of(tmp_path: Path) -> JobRequest:
    photos = str(tmp_path / "photos")
    return JobRequest((photos,), str(tmp_path / "people.h5"), (photos,), ("photos",), client="gate", key="k1")


def test_a_job_is_found_again_with_its_request(store: JobStore, request_of: JobRequest, tmp_path: Path) -> None:
    options = JobOptions(faces="all", min_score=0.7, include=("*.jpg",), limit=5)
    named = replace(request_of, options=options, photos=(os.fsdecode(b"/photos/\xff"),))
    job, is_new = store.add(named)
    again = JobStore(tmp_path / "jobs").find(job.id)
    assert again is not None
    stored = again.request()
    assert is_new
    assert replace(stored, created_utc="") == named
    assert stored.created_utc
    assert again.state().name == "waiting"
    assert [each.id for each in store.jobs()] == [job.id]
    assert {path.stat().st_mode & 0o777 for path in job.path.iterdir()} == {0o600}
    assert job.path.stat().st_mode & 0o777 == 0o700


def test_a_key_brings_the_same_job(store: JobStore, request_of: JobRequest) -> None:
    job, _ = store.add(request_of)
    same, is_new = store.add(replace(request_of, engines={"model": "of another server"}))
    assert (same.id, is_new) == (job.id, False)
    with raises(RequestError, "k1"):
        store.add(replace(request_of, photos=("/elsewhere",)))
    with raises(LockedError, job.id):  # of another client, whose keys are its own
        store.add(replace(request_of, client="desk"))


def test_two_jobs_do_not_make_one_file(store: JobStore, request_of: JobRequest, tmp_path: Path) -> None:
    job, _ = store.add(request_of)
    other = replace(request_of, key="")
    with raises(LockedError, job.id):
        store.add(other)
    store.cancel(job)
    second, _ = store.add(other)
    with raises(LockedError, second.id):
        store.resume(job)
    store.cancel(second)
    Path(request_of.output).write_bytes(b"a file of somebody")
    with raises(OutputExistsError, "people.h5"):
        store.add(other)
    assert store.add(replace(other, options=JobOptions(retry=True)))[1]


def test_wishes_and_ends_say_what_a_job_is(store: JobStore, request_of: JobRequest) -> None:
    job, _ = store.add(request_of)
    store.pause(job)
    assert job.state().name == "paused"
    store.pause(job)  # again is no mistake
    store.resume(job)
    assert job.state().name == "waiting"
    with job.take_lock():
        assert (job.lives(), job.state().name) == (True, "running")
        store.pause(job)
        assert job.state().name == "pausing"
        store.cancel(job)
        assert job.state().name == "stopping"
        with raises(LockedError, "stopping"):
            store.delete(job)
    assert job.state().name == "cancelled"
    with raises(LockedError, "cancelled"):
        store.pause(job)
    store.resume(job)
    job.set_end("failed", code="E-DISK-FULL", detail="no space")
    assert (job.state().name, job.state().code, job.state().detail) == ("failed", "E-DISK-FULL", "no space")
    store.resume(job)
    assert (job.state().name, job.end()) == ("waiting", None)
    job.set_end("finished", summary={"embedded": 3})
    assert job.state().summary == {"embedded": 3}
    for action in (store.pause, store.resume, store.cancel):
        with raises(LockedError, "finished"):
            action(job)


def test_a_job_is_deleted_with_what_it_did_of_an_unfinished_file(store: JobStore, request_of: JobRequest) -> None:
    job, _ = store.add(request_of)
    output = Path(request_of.output)
    with RunFolder(output) as folder:
        (folder.path / "plan.json").write_bytes(b"{}")
    with raises(LockedError, "waiting"):
        store.delete(job)
    store.cancel(job)
    with RunFolder(output), raises(LockedError, "people.h5"):
        store.delete(job)
    assert job.exists()
    store.delete(job)
    assert (store.jobs(), folder_of(output).exists(), job.path.exists()) == ([], False, False)


@pytest.mark.parametrize("name", ["", ".", "..", "../jobs", "lock", "20261129-224732-d41c9bcc/../x", "a" * 5000, "\0"])
def test_an_id_is_no_path(store: JobStore, request_of: JobRequest, name: str) -> None:
    store.add(request_of)
    assert store.find(name) is None


def test_damaged_and_foreign_folders_are_no_jobs(store: JobStore, request_of: JobRequest) -> None:
    (store.path / "20261129-224732-d41c9bcc").mkdir()  # of a server that was killed before the request was stored
    (store.path / "notes").mkdir()
    assert store.jobs() == []
    job, _ = store.add(request_of)
    (job.path / "request.json").write_bytes(b"{}")
    with raises(StorageError, "photos"):
        job.request()
    other, _ = store.add(replace(request_of, key=""))
    assert [each.id for each in store.jobs()] == sorted([job.id, other.id])
    (other.path / "wish.json").write_bytes(b"[")
    (other.path / "end.json").write_bytes(b"[]")
    assert other.state().name == "waiting"


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir(mode=0o700)
    (tmp_path / "jobs").chmod(0o777)
    with raises(ConfigError, "chmod go-w", "--jobs"):
        JobStore(tmp_path / "jobs")
    with raises(ConfigError, "--jobs"):
        JobStore(tmp_path / "missing" / "jobs")
    (tmp_path / "link").symlink_to(tmp_path)
    with raises(ConfigError, "link"):
        JobStore(tmp_path / "link")


def test_options_name_registered_models_and_no_files(tmp_path: Path) -> None:
    JobOptions(model="facemill-512", detector="facemill-det", landmarks="none", attributes="age").check()
    for options, text in (
        (JobOptions(model="/etc/passwd"), "/etc/passwd"),
        (JobOptions(model=str(tmp_path / "a.toml")), "facemill-512"),
        (JobOptions(model="facemill-det"), "facemill-512"),
        (JobOptions(detector="facemill-512"), "facemill-det"),
        (JobOptions(landmarks="facemill-det"), "facemill-landmarks"),
        (JobOptions(min_score=7), "7"),
        (JobOptions(attributes="name"), "name"),
        (JobOptions(exclude=("",)), "pattern"),
    ):
        with raises(ConfigError, text):
            options.check()


def test_the_engines_of_the_server_fill_what_options_leave_open(tmp_path: Path) -> None:
    engine = tmp_path / "e.onnx"
    engine.touch()
    given = {
        "engine": engine,
        "model": None,
        "backend": "cpu",
        "detector": "yunet",
        "landmarks": None,
        "align": "detect",
    }
    request = JobRequest(("/p",), "/o.h5", ("/p",), ("p",), engines=engines_of(given))
    assert request.engines["engine"] == str(engine)
    choice = request.engine_choice()
    assert (choice["engine"], choice["backend"], choice["detector"], request.align) == (
        str(engine),
        "cpu",
        "yunet",
        "detect",
    )
    named = replace(request, options=JobOptions(model="sface", detector="facemill-det", align="none"))
    choice = named.engine_choice()
    assert (choice["engine"], choice["model"], choice["detector"]) == (None, "sface", None)
    assert named.arguments()["faces"].align == "none"


def test_a_lock_is_seen_by_all_and_ends_with_its_holder(store: JobStore, request_of: JobRequest) -> None:
    job, _ = store.add(request_of)
    assert not job.lives()
    with job.take_lock():
        assert Job(job.path).lives()
        with raises(LockedError, job.id):
            job.take_lock()
    assert not job.lives()


def test_a_job_that_finds_no_space_leaves_nothing_behind(store: JobStore, request_of: JobRequest) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(StorageError):
            store.add(request_of)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in store.path.iterdir() if path.is_dir()] == []
    assert store.add(request_of)[1]
