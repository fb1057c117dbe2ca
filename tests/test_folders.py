"""Folders that facemill fills are complete or untouched after any failure. Only folders of facemill are emptied."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from runtime import folders
from runtime.access import Access, access_like
from runtime.errors import ConfigError, DiskFullError, LockedError, OutputExistsError, StorageError
from runtime.files import durable_file, synced_file
from runtime.folders import check_folder, fill_folder, replace_folder
from runtime.tree import Tree
from tests.support.errors import raises
from tests.support.facemill_command import ROOT

ENTRIES = r"thing-\d+"


def clear(folder: Tree) -> None:
    for name in reversed([name for name in folder.names(".") if name.startswith("thing-")]):
        if name.endswith("/x"):
            folder.unlink(name)
        else:
            folder.rmdir(name)


def fill(path: Path, entries: int = 2, *, force: bool = False, fail: bool = False) -> None:
    with fill_folder(path, "things", ENTRIES, force=force, clear=clear):
        for i in range(entries):
            (path / f"thing-{i}").mkdir()
            (path / f"thing-{i}" / "x").write_text("x")
        if fail:
            raise KeyboardInterrupt


def names(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith("thing"))


def test_a_new_or_empty_folder_is_filled(tmp_path: Path) -> None:
    fill(tmp_path / "new")
    assert names(tmp_path / "new") == ["thing-0", "thing-1"]
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    assert names(tmp_path / "empty") == ["thing-0", "thing-1"]


def test_a_finished_folder_is_replaced_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "d"
    fill(path, 3)
    with raises(OutputExistsError, "--force"):
        fill(path, 1)
    assert len(names(path)) == 3
    fill(path, 1, force=True)
    assert names(path) == ["thing-0"]


def test_an_unfinished_folder_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with pytest.raises(KeyboardInterrupt):
        fill(path, 3, fail=True)
    assert len(names(path)) == 3
    fill(path, 1)
    assert names(path) == ["thing-0"]


def test_a_kill_before_the_mark_is_complete_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".facemill.json.partial").write_text('{"ki')
    fill(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".facemill.json", "thing-0", "thing-1"]


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "strange" / "thing-0").mkdir(parents=True)  # named like a folder of facemill, without a mark
    (tmp_path / "file").write_text("mine")
    for name in ("strange", "file"):
        with pytest.raises(OutputExistsError):
            fill(tmp_path / name, force=force)
    fill(tmp_path / "ours")
    (tmp_path / "ours" / "holiday.jpg").write_text("mine")
    with raises(OutputExistsError, "holiday.jpg"):
        fill(tmp_path / "ours", force=force)
    with pytest.raises(OutputExistsError):
        check_folder(tmp_path / "ours", "other things", ENTRIES, force=force)
    assert (tmp_path / "ours" / "holiday.jpg").read_text() == "mine"
    assert names(tmp_path / "strange") == ["thing-0"]


@pytest.mark.parametrize("kind", ["pipe", "endless link"])
def test_a_mark_that_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    fill(tmp_path / "d")
    mark = tmp_path / "d" / ".facemill.json"
    mark.unlink()
    if kind == "pipe":
        os.mkfifo(mark)
    else:
        mark.symlink_to("/dev/zero")
    with raises(OutputExistsError, "thing-0"):
        fill(tmp_path / "d", force=True)


def test_a_folder_that_is_refused_keeps_its_mark(tmp_path: Path) -> None:
    fill(tmp_path / "d")

    def refuse(folder: Tree) -> None:
        raise OutputExistsError(f"{folder.path} holds a note")

    with (
        raises(OutputExistsError, tmp_path / "d"),
        fill_folder(tmp_path / "d", "things", ENTRIES, force=True, check=refuse, clear=clear),
    ):
        raise AssertionError("the work began")
    assert '"finished": true' in (tmp_path / "d" / ".facemill.json").read_text()
    assert names(tmp_path / "d") == ["thing-0", "thing-1"]


def test_a_full_disk_is_emptied_before_the_mark_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has no room for the mark as long as the folder holds anything."""
    path = tmp_path / "d"
    fill(path)
    write = Tree.write

    def write_if_empty(folder: Tree, name: str, data: bytes, access: Access) -> None:
        if names(path) and b"false" in data:
            raise OSError(errno.ENOSPC, "no space left")
        write(folder, name, data, access)

    monkeypatch.setattr(Tree, "write", write_if_empty)
    fill(path, 1, force=True)
    assert names(path) == ["thing-0"]


@pytest.mark.parametrize("instead", ["a link", "a folder"])
@pytest.mark.parametrize("moment", ["check", "clear", "work", "mark"])
def test_what_takes_the_place_of_a_folder_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, instead: str
) -> None:
    """Whoever may write in the folder above can swap the folder at any time, also right before its last mark."""
    path, other = tmp_path / "d", tmp_path / "other"
    fill(path)
    (other / "thing-0").mkdir(parents=True)
    (other / ".facemill.json").write_text('{"kind": "things", "finished": true}')

    def swap(now: str) -> None:
        if now == moment:
            path.rename(tmp_path / "away")
            if instead == "a link":
                path.symlink_to(other)
            else:
                other.rename(path)

    def clear_then_swap(folder: Tree) -> None:
        clear(folder)
        swap("clear")

    check_place = Tree.check_place

    def check_then_swap(folder: Tree) -> None:
        check_place(folder)
        swap("mark")

    monkeypatch.setattr(Tree, "check_place", check_then_swap)
    with (
        nullcontext() if moment == "mark" else raises(StorageError, "'d' is gone, is a link"),
        fill_folder(
            path, "things", ENTRIES, force=True, check=lambda folder: swap("check"), clear=clear_then_swap
        ) as folder,
    ):
        folder.make_folder("thing-7", access_like([]))
        swap("work")
    assert sorted(os.listdir(path)) == [".facemill.json", "thing-0"]
    assert (path / ".facemill.json").read_text() == '{"kind": "things", "finished": true}'
    assert names(tmp_path / "away") == ["thing-7"]
    assert (tmp_path / "away" / ".facemill.json").read_text() == json.dumps(
        {"kind": "things", "finished": moment == "mark"}
    )


def test_a_folder_that_another_process_has_just_finished_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process ends between the first look and the lock."""
    make = folders.make_folder

    def finish_then_make(path: Path, **options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(folders, "make_folder", make)
            fill(path, 3)
        make(path, **options)

    monkeypatch.setattr(folders, "make_folder", finish_then_make)
    with raises(OutputExistsError, "--force"):
        fill(tmp_path / "d", 1)
    assert len(names(tmp_path / "d")) == 3


def test_a_link_in_the_place_of_the_mark_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "d").mkdir()
    for name in (".facemill.json", ".facemill.json.partial"):
        (tmp_path / "d" / name).symlink_to(tmp_path / "victim")
    fill(tmp_path / "d")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "d" / ".facemill.json").is_symlink()
    assert sorted(os.listdir(tmp_path / "d")) == [".facemill.json", "thing-0", "thing-1"]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "nowhere"):
        with raises(ConfigError, tmp_path / place, "mkdir"):
            fill(tmp_path / place / "d")


ARRAYS = r"[ab]\.npy"

# Writes two files into a folder, or a file in two pieces; prints a line, and waits between the pieces to be killed.
WRITER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from runtime.files import durable_file, synced_file
from runtime.folders import replace_folder
path = Path({path!r})
if {folder}:
    with replace_folder(path, "arrays", {entries!r}, force=True) as partial:
        with synced_file(partial / "a.npy") as file:
            file.write(b"new a")
        print("half", flush=True)
        time.sleep({wait})
        with synced_file(partial / "b.npy") as file:
            file.write(b"new b")
else:
    with durable_file(path, "the file") as file:
        file.write(b"new ")
        file.flush()
        print("half", flush=True)
        time.sleep({wait})
        file.write(b"content")
"""


def writer(path: Path, *, folder: bool, wait: float) -> subprocess.Popen[str]:
    code = WRITER.format(root=str(ROOT), path=str(path), folder=folder, entries=ARRAYS, wait=wait)
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


@pytest.mark.slow
@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_kill_9_leaves_the_old_content_and_the_next_attempt_succeeds(tmp_path: Path, folder: bool, old: bool) -> None:
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
        make = replace_folder(path, "x", ARRAYS, force=True) if folder else durable_file(path, "x")
        with pytest.raises(LockedError), make:
            pass
        half = content(tmp_path / "out.partial")
        assert half == ({"a.npy": b"new a"} if folder else b"new ")  # the first writer was not disturbed
        process.kill()


def test_a_kill_between_the_two_renames_is_cleaned_up_by_the_next_attempt(tmp_path: Path) -> None:
    """The kill comes after the old folder was moved into the new one, and before the new one was renamed."""
    path, partial = tmp_path / "out", tmp_path / "out.partial"
    (partial / "replaced").mkdir(parents=True)
    (partial / "replaced" / "a.npy").write_bytes(b"old a")
    (partial / "a.npy").write_bytes(b"new a")
    with replace_folder(path, "x", ARRAYS, force=False) as folder, synced_file(folder / "b.npy") as file:
        file.write(b"newer")
    assert content(path) == {"b.npy": b"newer"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
def test_when_the_new_folder_cannot_be_renamed_the_old_one_is_restored(
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
    expected_error = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected_error), replace_folder(path, "x", ARRAYS, force=True) as partial:
        (partial / "a.npy").write_bytes(b"new")
    assert content(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [True, False])
def test_a_failed_block_leaves_the_old_content(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "out"
    before = put(path, folder=folder, old=True)

    def fail() -> None:
        if folder:
            with replace_folder(path, "x", ARRAYS, force=True) as partial, synced_file(partial / "a.npy") as file:
                file.write(b"new")
                raise ZeroDivisionError
        with durable_file(path, "x") as file:
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
from runtime.files import durable_file, synced_file
from runtime.folders import replace_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with replace_folder(Path({path!r}), "arrays", "a", force=False) as partial:
        with synced_file(partial / "a") as file:
            file.write(bytes(10_000))
except DiskFullError as err:
    print(err)
try:
    with durable_file(Path({path!r}), "the file") as file:
        file.write(bytes(10_000))
except DiskFullError as err:
    print(err)
"""


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    code = FULL.format(root=str(ROOT), path=str(tmp_path / "out"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.count("E-DISK-FULL: ") == 2, result.stderr
    assert not list(tmp_path.iterdir())
    assert issubclass(DiskFullError, OSError)


def test_unusable_paths_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "ours").mkdir()
    for path, force, error in [
        (tmp_path / "no" / "out", True, ConfigError),
        (tmp_path / "file", True, OutputExistsError),
        (tmp_path / "folder", True, OutputExistsError),
        (tmp_path / "ours", False, OutputExistsError),
    ]:
        before = content(path)
        with pytest.raises(error), replace_folder(path, "x", ARRAYS, force=force):
            raise AssertionError("the work began")
        assert content(path) == before
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "ours"]


def test_files_of_others_in_the_temporary_folder_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("years of work")
    make = replace_folder(tmp_path / "out", "x", ARRAYS, force=True)
    with raises(OutputExistsError, "thesis.txt"), make:
        pass
    assert (tmp_path / "out.partial" / "thesis.txt").exists()


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / "elsewhere" / "d", folder=True, old=True)
    (tmp_path / "d").symlink_to(tmp_path / "elsewhere" / "d")
    with replace_folder(tmp_path / "d", "x", ARRAYS, force=True) as partial, synced_file(partial / "a.npy") as file:
        file.write(b"new a")
    assert content(tmp_path / "elsewhere" / "d") == {"a.npy": b"new a"}
    assert (tmp_path / "d").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_folders_are_as_private_as_their_source(tmp_path: Path, mode: int) -> None:
    source = tmp_path / "people.h5"
    source.touch()
    source.chmod(mode)
    with replace_folder(tmp_path / "out", "arrays", ARRAYS, force=False, like=source) as folder:
        assert folder.stat().st_mode & 0o077 & ~(mode | 0o111) == 0
        with synced_file(folder / "a.npy", like=source):
            pass
    with fill_folder(tmp_path / "things", "things", ENTRIES, force=False, like=source, clear=clear):
        pass
    created = sorted(path for path in tmp_path.rglob("*") if path != source)
    assert [path.name for path in created] == ["out", "a.npy", "things", ".facemill.json"]
    for path in created:
        assert path.stat().st_mode & 0o077 & ~(mode | 0o111) == 0, path


def test_a_replaced_folder_passes_on_its_mode(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(0o700)
    with replace_folder(tmp_path / "out", "arrays", ARRAYS, force=True):
        pass
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_second_process_does_not_fill_the_same_folder(tmp_path: Path) -> None:
    with fill_folder(tmp_path / "d", "things", ENTRIES, force=False, clear=clear):
        (tmp_path / "d" / "thing-0").mkdir()
        with pytest.raises(LockedError), fill_folder(tmp_path / "d", "things", ENTRIES, force=True, clear=clear):
            raise AssertionError("the work began")
        assert (tmp_path / "d" / "thing-0").exists()
