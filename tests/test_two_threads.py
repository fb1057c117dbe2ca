"""Two threads of one process work at once: one processes photos, another searches. Neither changes the process."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import h5py
import pytest

from runtime.engines.engine import read_engine
from runtime.errors import Interrupted
from runtime.faces.rules import FaceRules
from runtime.interrupt import RunControl
from runtime.pipeline.request import Request, RunOptions
from runtime.pipeline.run import process
from runtime.progress import State
from runtime.search.search import Search
from runtime.storage.segments import SegmentRules
from tests.support.interrupted_runs import assert_same_file


@pytest.fixture
def request_for(photos: Path, tiny_engine: Path, tmp_path: Path) -> Callable[..., Request]:
    def make_request(output: str) -> Request:
        options = RunOptions(batch_size=4, segments=SegmentRules(64, 60))
        engine = read_engine(tiny_engine)
        return Request((str(photos),), tmp_path / output, engine, faces=FaceRules("none"), run=options)

    return make_request


def process_state() -> tuple[object, ...]:
    """Return the process state that a library must not change."""
    mask = os.umask(0o022)
    os.umask(mask)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    return mask, dict(os.environ), handlers, cv2.getNumThreads(), os.sched_getaffinity(0)


class Listening:
    """Sets an event once photos are under way, and keeps the last state."""

    def __init__(self) -> None:
        self.advancing = threading.Event()
        self.last: State | None = None

    def started(self, job: str, total: int, done: int) -> None:
        pass

    def advanced(self, state: State) -> None:
        self.advancing.set()

    def finished(self, state: State) -> None:
        self.last = state


@pytest.mark.slow
def test_one_thread_processes_while_another_searches(
    request_for: Callable[..., Request], photos: Path, tmp_path: Path
) -> None:
    process(request_for("alone.h5"))
    queries = [str(path) for path in sorted(photos.rglob("*.jpg"))[:12]]

    def search() -> list[tuple[object, ...]]:
        with Search(tmp_path / "alone.h5") as opened:
            answers = opened.find(queries, k=5)
        return [(answer.hits, answer.error) for answer in answers]

    expected, before = search(), process_state()
    stop, answers = threading.Event(), list[object]()

    def search_until_stopped() -> None:
        while not stop.is_set():
            answers.append(search())

    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(search_until_stopped)
        try:
            for number in range(3):
                assert process(request_for(f"beside-{number}.h5")).processed == 600
        finally:
            stop.set()
        searching.result()
    assert len(answers) >= 1
    assert all(answer == expected for answer in answers)
    for number in range(3):
        assert_same_file(tmp_path / f"beside-{number}.h5", tmp_path / "alone.h5")
    assert process_state() == before


@pytest.mark.slow
def test_a_thread_stops_a_run_and_the_same_request_resumes_it(
    request_for: Callable[..., Request], tmp_path: Path
) -> None:
    process(request_for("whole.h5"))
    control, listening = RunControl(), Listening()
    control.pause()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(process, request_for("o.h5"), listener=listening, control=control)
        assert listening.advancing.wait(30)  # the listener is called although no photo arrives
        assert not (tmp_path / "o.h5").exists()
        control.stop()
        with pytest.raises(Interrupted) as stopped:
            running.result(timeout=60)
    assert stopped.value.signum == 0
    assert listening.last is not None
    assert (listening.last.done, listening.last.total) == (0, 600)
    assert process(request_for("o.h5")).processed == 600
    assert_same_file(tmp_path / "o.h5", tmp_path / "whole.h5")


@pytest.mark.slow
def test_a_paused_and_resumed_run_ends_normally(request_for: Callable[..., Request], tmp_path: Path) -> None:
    control, listening = RunControl(), Listening()
    control.pause()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(process, request_for("o.h5"), listener=listening, control=control)
        assert listening.advancing.wait(30)
        control.resume()
        assert running.result(timeout=60).processed == 600
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["embeddings"].shape == (594, 16)


@pytest.mark.slow
def test_a_library_call_prints_nothing_and_does_not_change_the_process(
    request_for: Callable[..., Request], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = process_state()
    with caplog.at_level(logging.WARNING):
        process(request_for("o.h5"))
    output = capfd.readouterr()
    assert output.out == ""
    # libjpeg itself prints about a photo that was cut short; only a command may take fd 2 away from its process.
    assert [line for line in output.err.splitlines() if not line.startswith("Corrupt JPEG data: ")] == []
    assert caplog.records == []
    assert process_state() == before
