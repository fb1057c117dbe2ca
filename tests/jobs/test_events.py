"""The event log of a job: numbers without a gap, after a crash and over a change of the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from runtime.jobs.events import EventLog, EventReader, last_event_id, last_progress
from tests.support.facemill_command import ROOT


def numbers(folder: Path, after: int = 0) -> list[int]:
    return [event.id for event in EventReader(folder, after).read()]


def test_events_are_read_from_any_event_on(tmp_path: Path) -> None:
    assert (numbers(tmp_path), last_event_id(tmp_path), last_progress(tmp_path)) == ([], 0, None)
    reader = EventReader(tmp_path)
    with EventLog(tmp_path) as log:
        assert reader.read() == []
        log.append("started")
        log.append("progress", done=3)
        assert [(event.kind, event.facts.get("done")) for event in reader.read()] == [
            ("started", None),
            ("progress", 3),
        ]
        log.append("progress", done=4)
        assert [event.id for event in reader.read()] == [3]
        assert reader.read() == []
    assert numbers(tmp_path, 1) == [2, 3]
    assert numbers(tmp_path, 3) == []
    facts = last_progress(tmp_path)
    assert facts is not None
    assert facts["done"] == 4
    # A power cut may take the last events: a number that the log does not have yet is no reason to skip the next ones.
    assert numbers(tmp_path, 99) == [1, 2, 3]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    with EventLog(tmp_path) as log:
        log.append("started")
    path = tmp_path / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"id": 2, "event": "progr')
    reader = EventReader(tmp_path)
    assert [event.id for event in reader.read()] == [1]
    with EventLog(tmp_path) as log:
        log.append("progress", done=1)
    assert [(event.id, event.kind) for event in reader.read()] == [(2, "progress")]
    # Zeros, which a power cut may leave for what was written last.
    with path.open("ab") as file:
        file.write(b"\0" * 50 + b"\n")
    with EventLog(tmp_path) as log:
        log.append("ended")
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_long_log_becomes_the_old_one_and_readers_miss_nothing(tmp_path: Path) -> None:
    total, seen, rng = 3000, list[int](), np.random.default_rng(0)
    reader = EventReader(tmp_path)
    with EventLog(tmp_path, max_bytes=20_000) as log:
        done = 0
        while done < total:
            for _ in range(min(total - done, int(rng.integers(0, 150)))):  # less than a log holds
                done += 1
                log.append("progress", done=done)
            seen += [event.id for event in reader.read()]
    assert seen == list(range(1, total + 1))
    sizes = [os.path.getsize(tmp_path / name) for name in ("events.jsonl", "events.old.jsonl")]
    assert max(sizes) < 21_000
    left = numbers(tmp_path)
    assert left == list(range(left[0], total + 1))
    assert len(left) > 200
    assert numbers(tmp_path, total - 5) == list(range(total - 4, total + 1))


def test_several_threads_append_and_a_reader_follows(tmp_path: Path) -> None:
    def write() -> None:
        for _ in range(300):
            log.append("progress")

    seen: list[int] = []
    reader = EventReader(tmp_path)
    with EventLog(tmp_path) as log:
        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen += [event.id for event in reader.read()]
        seen += [event.id for event in reader.read()]
    assert seen == list(range(1, 901))


def test_a_log_that_cannot_be_written_does_not_stop_the_job(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from runtime.jobs.events import EventLog, last_event_id
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path({str(tmp_path)!r})
with EventLog(folder) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for done in range(100):
        log.append("progress", done=done)
print(last_event_id(folder))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    last = int(result.stdout)
    assert numbers(tmp_path)[-1] == last
    assert (tmp_path / "events.jsonl").read_bytes().endswith(b"\n")
