"""Interrupt runs by kills, signals, full disks and second runs: complete segments stay, and the file is the same."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from runtime.errors import DiskFullError, StorageError
from runtime.pipeline.disk import check_disk
from runtime.storage.contract import EmbeddingContract
from runtime.storage.opening import refuse_system_error
from tests.support import encoded_images as make
from tests.support.embedding_files import contents
from tests.support.errors import assert_names, assert_refused, raises
from tests.support.facemill_command import ROOT, facemill, facemill_process, start_facemill, summary
from tests.support.interrupted_runs import (
    SMALL_SEGMENTS,
    InterruptedRun,
    assert_same_file,
    file_size_limit,
    segments,
    wait_for_segment,
)

PHOTO_COUNT = 600


@pytest.fixture(scope="module")
def photo_list(photos: Path, shipped_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a list of the photos."""
    listing = tmp_path_factory.mktemp("list") / "list.txt"
    listing.write_text("\n".join(str(path) for path in sorted(photos.rglob("*.jpg"))))
    return f"@{listing}"


@pytest.fixture(scope="module")
def uninterrupted(photo_list: str, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Run without interruption; returns the file and the seconds of the process."""
    output = tmp_path_factory.mktemp("whole") / "o.h5"
    begin = time.monotonic()
    result = facemill_process("process", photo_list, "-o", output, "--engine", tiny_engine, *SMALL_SEGMENTS)
    assert result.returncode == 0, result.stderr
    return output, time.monotonic() - begin


@pytest.fixture
def run(photo_list: str, tiny_engine: Path, tmp_path: Path, uninterrupted: tuple[Path, float]) -> InterruptedRun:
    """Make a run of the photo list that a test can interrupt."""
    output = tmp_path / "o.h5"
    arguments = ("process", photo_list, "-o", output, "--engine", tiny_engine, *SMALL_SEGMENTS)
    return InterruptedRun(output, arguments, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_a_run_resumes_after_kill_9_at_a_random_moment(
    moment: int, run: InterruptedRun, uninterrupted: tuple[Path, float]
) -> None:
    with start_facemill(*run.arguments) as process:
        # The first half of the time is start-up, so most moments are during the processing of photos.
        time.sleep(random.Random(moment).uniform(0.4, 1.0) * uninterrupted[1])
        process.kill()
    run.resume()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_stopped_by_a_signal_resumes(signum: signal.Signals, run: InterruptedRun) -> None:
    with run.start() as process:
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, errors
    assert re.search(rf"[\d,]+ of {PHOTO_COUNT:,} photos", errors)
    assert "Traceback" not in errors
    assert not run.output.exists()
    resumed, _ = run.resume()
    assert 0 < resumed["processed"] < PHOTO_COUNT  # finished photos are not processed again


@pytest.mark.slow
def test_sigusr1_pauses_and_resumes(run: InterruptedRun, uninterrupted: tuple[Path, float]) -> None:
    unfinished = run.output.parent / "o.h5.parts"
    with run.start() as process:
        process.send_signal(signal.SIGUSR1)
        segments_before: list[Path] = []
        for _ in range(60):  # photos in flight are finished and stored
            time.sleep(1 + uninterrupted[1] / 4)  # longer on a busy machine
            if segments(run.output) == segments_before and not list(unfinished.glob("*.partial")):
                break
            segments_before = segments(run.output)
        assert not list(unfinished.glob("*.partial"))
        time.sleep(0.5 + uninterrupted[1])  # longer than the complete run
        assert process.poll() is None
        assert segments(run.output) == segments_before
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count("SIGUSR1") == 2
    assert_same_file(run.output, run.expected)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3_000, 30_000, 200_000])
def test_a_run_stopped_by_a_full_disk_resumes(limit: int, run: InterruptedRun) -> None:
    # 3 kB hold the plan but not the path table, 30 kB no segment, 200 kB the segments but not the finished file.
    result = facemill_process(*run.arguments, preexec_fn=file_size_limit(limit))
    assert_refused(result, "E-DISK-FULL")
    assert not run.output.exists()
    run.resume()


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_output(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    arguments = ("process", photos / "1", "-o", output, "--engine", tiny_engine)
    assert facemill(*arguments).returncode == 0
    before = output.read_bytes()
    result = facemill_process(*arguments, "--force", preexec_fn=file_size_limit(200_000))
    assert result.returncode == 1
    assert output.read_bytes() == before


def test_a_run_too_large_for_the_disk_is_refused(tmp_path: Path) -> None:
    contract = EmbeddingContract(dimension=512, dtype="float32", skip_duplicates=False)
    with raises(DiskFullError, "1,000,000,000,000", "GB"):
        check_disk(tmp_path / "o.h5", 10**12, contract, 30)


@pytest.mark.slow
def test_a_second_run_with_the_same_output_is_refused(run: InterruptedRun) -> None:
    with run.start() as first:
        first.send_signal(signal.SIGUSR1)
        result = facemill(*run.arguments)
        assert_refused(result, "E-LOCKED", run.output)
        first.send_signal(signal.SIGUSR1)
        first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.slow
def test_a_resumed_run_keeps_its_first_scan(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = make.encode(make.scene(112, 112))
    for i in range(6000):
        (folder / f"{i:04d}.jpg").write_bytes(photo)
    output = tmp_path / "o.h5"
    arguments = ("process", folder, "-o", output, "--engine", tiny_engine, *SMALL_SEGMENTS)
    with start_facemill(*arguments) as process:
        wait_for_segment(output)
        process.kill()
    for i in range(5990, 6000):
        (folder / f"{i:04d}.jpg").unlink()
    (folder / "0000-new.jpg").write_bytes(make.encode(make.scene(112, 112)))
    result = facemill(*arguments, "--json")
    counts = summary(result)
    assert_names(result.stderr, 1, 10)
    assert counts["scanned"] == 6000
    assert counts["outcomes"] == {"embedded": 5990, "unreadable": 10}


@pytest.mark.slow
def test_photos_of_a_damaged_segment_are_processed_again(run: InterruptedRun) -> None:
    run.kill()
    segment = segments(run.output)[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    segment.write_bytes(data)
    run.resume()


@pytest.mark.slow
def test_photos_of_a_segment_with_damaged_vectors_are_processed_again(run: InterruptedRun) -> None:
    run.kill()
    segment = segments(run.output)[0]
    with h5py.File(segment) as file:
        offset = file["embeddings"].id.get_chunk_info(0).byte_offset
    data = bytearray(segment.read_bytes())
    data[offset + 100] ^= 1  # one bit: the structure stays valid, the checksum does not
    segment.write_bytes(data)
    _, errors = run.resume()
    assert str(segment) in errors


@pytest.mark.slow
def test_a_run_may_have_more_segments_than_open_files(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = make.encode(make.scene(112, 112))
    for i in range(1000):
        (folder / f"{i:04d}.jpg").write_bytes(photo)
    output = tmp_path / "o.h5"
    result = facemill_process(
        *("process", folder, "-o", output, "--engine", tiny_engine, "--segment-rows", 8, "--json"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    assert summary(result)["embedded"] == 1000  # in 125 segments
    assert "segment-" not in result.stderr


def test_system_errors_are_not_reported_as_damage(tmp_path: Path) -> None:
    with raises(StorageError, "Too many open files"):
        refuse_system_error(OSError(24, "x"), tmp_path / "segment-000001.h5")
    refuse_system_error(OSError("file signature not found"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.2, 1.6, 2.2])
def test_a_signal_during_start_or_tuning_gives_no_traceback(
    delay: float, photo_list: str, tiny_engine: Path, tmp_path: Path
) -> None:
    arguments = ("process", photo_list, "-o", tmp_path / "o.h5", "--engine", tiny_engine)
    with start_facemill(*arguments, env={**os.environ, "FACEMILL_CACHE": str(tmp_path / "cache")}) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    # Before facemill installs its handler, the signal kills Python; after the last photo, the run finishes.
    assert process.returncode in (143, -signal.SIGTERM, 0), errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_run_ended_by_a_second_signal_resumes(run: InterruptedRun) -> None:
    with run.start() as process:
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    run.resume()


@pytest.mark.slow
def test_a_killed_run_with_force_resumes(run: InterruptedRun) -> None:
    shutil.copy(run.expected, run.output)
    with run.start("--force") as process:
        process.kill()
    resumed, _ = run.resume("--force")
    assert 0 < resumed["processed"] < PHOTO_COUNT
    restarted, _ = run.resume("--force")
    assert restarted["processed"] == PHOTO_COUNT  # a finished run starts over with --force


@pytest.mark.slow
@pytest.mark.parametrize("retry", [(), ("--retry",)])
def test_a_kill_after_the_file_is_finished_does_no_harm(
    retry: tuple[str, ...], tiny_engine: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(make.encode(make.scene(112, 112)))
    (folder / "2.jpg").write_bytes(b"")
    output = tmp_path / "o.h5"
    arguments = ("process", folder, "-o", output, "--engine", tiny_engine)
    if retry:
        assert facemill(*arguments).returncode == 0
        output.chmod(0o600)
        (folder / "2.jpg").write_bytes(make.encode(make.scene(112, 112, seed=2)))
    # The process dies when the file is finished and the folder of the run still exists.
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from runtime.storage.runfolder import RunFolder\n"
        "RunFolder.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from runtime.cli.process import main\n"
        f"main({[str(argument) for argument in (*arguments[1:], *retry)]!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == -signal.SIGKILL
    parts = tmp_path / "o.h5.parts"
    assert len(list(parts.iterdir())) > 2
    if retry:  # the replacement is as private as the file
        assert not any(path.stat().st_mode & 0o077 for path in (output, parts, *parts.iterdir()))
    resumed = summary(facemill(*arguments, *retry, "--json"))
    assert resumed["embedded"] == (2 if retry else 1)
    assert sorted(os.listdir(tmp_path)) == ["o.h5", "photos"]


@pytest.mark.slow
def test_skip_duplicates_survives_a_full_disk(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3000):
        (folder / f"{i}.jpg").write_text(f"not a photo {i}")
    arguments = ("process", folder, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--skip-duplicates")
    result = facemill_process(*arguments, preexec_fn=file_size_limit(60_000))
    assert_refused(result, "E-DISK-FULL")
    assert summary(facemill(*arguments, "--json"))["outcomes"] == {"unsupported": 3000}
    assert sorted(os.listdir(tmp_path)) == ["o.h5", "photos"]


@pytest.mark.slow
def test_skip_duplicates_survives_kill_9(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder / "a")
    shutil.copytree(photos, folder / "b")
    arguments = ("process", folder, "--engine", tiny_engine, "--skip-duplicates", *SMALL_SEGMENTS)
    assert facemill(*arguments, "-o", tmp_path / "whole.h5").returncode == 0
    (tmp_path / "here").mkdir()
    output = tmp_path / "here" / "o.h5"
    run = InterruptedRun(output, (*arguments, "-o", output), tmp_path / "whole.h5")
    run.kill()
    run.resume()
    assert contents(output)["embeddings"][0] == (594, 16)
