"""Files and folders of an export: whole under their names or not there, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import ConfigError, DiskFullError, LockedError, OutputExistsError, StorageError
from runtime.export.whole import synced_file, whole_file, whole_folder
from tests.support.errors import raises
from tests.support.facemill_command import ROOT

NAMES = {"a.npy", "b.npy"}

# Writes two files into a folder, or a file in two pieces; says so, and waits between the pieces to be killed.
WRITER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from runtime.export.whole import synced_file, whole_file, whole_folder
path = Path({path!r})
if {folder}:
    with whole_folder(path, {names!r}, "the folder", force=True) as partial:
        with synced_file(partial / "a.npy") as file:
            file.write(b"new a")
        print("half", flush=True)
        time.sleep({wait})
        with synced_file(partial / "b.npy") as file:
            file.write(b"new b")
else:
    with whole_file(path, "the file", force=True) as file:
        file.write(b"new ")
        file.flush()
        print("half", flush=True)
        time.sleep({wait})
        file.write(b"content")
"""


def writer(path: Path, *, folder: bool, wait: float) -> subprocess.Popen[str]:
    code = WRITER.format(root=str(ROOT), path=str(path), folder=folder, names=NAMES, wait=wait)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def content(path: Path) -> object:
    if path.is_dir():
        return {entry.name: entry.read_bytes() for entry in path.iterdir()}
    return path.read_bytes() if path.exists() else None


def put(path: Path, *, folder: bool, old: bool) -> object:
    if old and folder:
        path.mkdir()
        (path / "a.npy").write_bytes(b"old a")
    elif old:
        path.write_bytes(b"old")
    return content(path)


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_kill_9_leaves_what_was_there_and_the_next_try_succeeds(tmp_path: Path, folder: bool, old: bool) -> None:
    path = tmp_path / "out"
    before = put(path, folder=folder, old=old)
    with writer(path, folder=folder, wait=60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert content(path) == before
    assert (tmp_path / "out.partial").exists()
    with writer(path, folder=folder, wait=0) as process:
        process.communicate()
    assert process.returncode == 0
    assert content(path) == ({"a.npy": b"new a", "b.npy": b"new b"} if folder else b"new content")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [True, False])
def test_a_second_writer_is_refused(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "out"
    with writer(path, folder=folder, wait=60) as process:
        assert process.stdout is not None
        process.stdout.readline()
        make = whole_folder(path, NAMES, "x", force=True) if folder else whole_file(path, "x", force=True)
        with raises(LockedError), make:
            pass
        half = content(tmp_path / "out.partial")
        assert half == ({"a.npy": b"new a"} if folder else b"new ")  # it was not disturbed
        process.kill()


def test_killed_between_the_two_renames_nothing_is_half_there_and_the_next_try_clears_up(tmp_path: Path) -> None:
    """What a kill leaves when the old folder has been moved into the new one and the new one has no name yet."""
    path, partial = tmp_path / "out", tmp_path / "out.partial"
    (partial / "replaced").mkdir(parents=True)
    (partial / "replaced" / "a.npy").write_bytes(b"old a")
    (partial / "a.npy").write_bytes(b"new a")
    with whole_folder(path, NAMES, "x", force=False) as folder, synced_file(folder / "b.npy") as file:
        file.write(b"newer")
    assert content(path) == {"b.npy": b"newer"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
def test_when_the_new_folder_cannot_take_the_name_the_old_one_has_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "out"
    before = put(path, folder=True, old=True)
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if source.suffix == ".partial":
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    wanted = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted), whole_folder(path, NAMES, "x", force=True) as partial:
        (partial / "a.npy").write_bytes(b"new")
    assert content(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [True, False])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "out"
    before = put(path, folder=folder, old=True)

    def fail() -> None:
        if folder:
            with whole_folder(path, NAMES, "x", force=True) as partial, synced_file(partial / "a.npy") as file:
                file.write(b"new")
                raise ZeroDivisionError
        with whole_file(path, "x", force=True) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(path) == before
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from runtime.errors import DiskFullError
from runtime.export.whole import synced_file, whole_file, whole_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_folder(Path({path!r}), {{"a"}}, "the folder", force=False) as partial:
        with synced_file(partial / "a") as file:
            file.write(bytes(10_000))
except DiskFullError as err:
    print(err)
try:
    with whole_file(Path({path!r}), "the file", force=False) as file:
        file.write(bytes(10_000))
except DiskFullError as err:
    print(err)
"""


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    code = FULL.format(root=str(ROOT), path=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("no room left while writing") == 2, done.stderr
    assert not list(tmp_path.iterdir())
    assert issubclass(DiskFullError, OSError)


def test_places_that_will_not_do_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for path, make, error in [
        (tmp_path / "no" / "out", whole_file(tmp_path / "no" / "out", "x", force=True), ConfigError),
        (tmp_path / "no" / "out", whole_folder(tmp_path / "no" / "out", NAMES, "x", force=True), ConfigError),
        (tmp_path / "file", whole_file(tmp_path / "file", "x", force=False), OutputExistsError),
        (tmp_path / "folder", whole_file(tmp_path / "folder", "x", force=True), OutputExistsError),
        (tmp_path / "file", whole_folder(tmp_path / "file", NAMES, "x", force=True), OutputExistsError),
        (tmp_path / "folder", whole_folder(tmp_path / "folder", NAMES, "x", force=True), OutputExistsError),
    ]:
        before = content(path)
        with pytest.raises(error), make:
            raise AssertionError("the work began")
        assert content(path) == before
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_the_temporary_folder_is_not_cleared_of_what_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("years of work")
    make = whole_folder(tmp_path / "out", NAMES, "x", force=True)
    with raises(OutputExistsError, "thesis.txt"), make:
        pass
    assert (tmp_path / "out.partial" / "thesis.txt").exists()


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, folder in (("f", False), ("d", True)):
        put(tmp_path / "elsewhere" / name, folder=folder, old=True)
        (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)
    with whole_file(tmp_path / "f", "x", force=True) as file:
        file.write(b"new")
    with whole_folder(tmp_path / "d", NAMES, "x", force=True) as partial, synced_file(partial / "a.npy") as file:
        file.write(b"new a")
    assert content(tmp_path / "elsewhere" / "f") == b"new"
    assert content(tmp_path / "elsewhere" / "d") == {"a.npy": b"new a"}
    assert (tmp_path / "f").is_symlink()
    assert (tmp_path / "d").is_symlink()
