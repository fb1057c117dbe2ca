"""A photo is data, a machine is not: what a disk, a server or a limit refuses stops a run, and is no outcome.

The faults happen where Python asks the system: in `os.open`, `os.scandir` and `os.stat`, or on a real mount.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime import retries
from runtime.attributes.answers import unread_rows
from runtime.engines.engine import read_engine
from runtime.errors import Interrupted, MachineError, SourceError
from runtime.faces.rules import FaceRules
from runtime.interrupt import RunControl
from runtime.pipeline.request import Request
from runtime.pipeline.settings import Settings
from runtime.pipeline.worker import RunContext, Task, embed_task
from runtime.records import Status
from runtime.sources.scan import scan
from runtime.sources.source import FileSource, MemorySource
from runtime.storage.file import EmbeddingFile
from runtime.storage.segments import read_segments
from tests.support import encoded_images as make
from tests.support.attribute_files import write_attribute_model
from tests.support.errors import raises
from tests.support.facemill_command import facemill, summary
from tests.support.faults.laboratory import Laboratory
from tests.support.faults.operations import Fault, Kind

FAULTS = ["EIO", "ESTALE", "EMFILE", "ENOMEM"]
PHOTOS = 60
BROKEN = "b/25.jpg"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSES_S", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos in three folders: a, b and c."""
    for number in range(PHOTOS):
        path = tmp_path / "photos" / "abc"[number // 20] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make.encode(make.scene(112, 112, seed=number)))
    return tmp_path / "photos"


@contextmanager
def at_open(path: object, action: Callable[[int], None]) -> Iterator[None]:
    """Call an action with the number of the try, from 1, each time before a file or folder is opened."""
    real, name, tries = os.open, os.fspath(str(path)), Counter[str]()

    def opened(target: Any, *arguments: Any, **options: Any) -> int:
        if isinstance(target, (str, bytes)) and os.fsdecode(target) == name:
            tries[name] += 1
            action(tries[name])
        return real(target, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        yield


def failing(name: str, first: int = 1, last: int = 10**9) -> Callable[[int], None]:
    """An action that raises an error of the system at some tries."""

    def fail(number: int) -> None:
        if first <= number <= last:
            code = getattr(errno, name)
            raise OSError(code, os.strerror(code))

    return fail


def once(action: Callable[[], object]) -> Callable[[int], None]:
    return lambda number: action() and None if number == 1 else None


def process(engine: Path, photos: object, output: Path, *options: object) -> Any:
    arguments = ("-o", output, "--engine", engine, "--align", "none", "--workers", 1, "--batch-size", 4, "--json")
    return facemill("process", photos, *arguments, *options)


def outcomes(output: Path) -> dict[str, int]:
    """Number of photos by outcome, of a finished file or of the segments of an unfinished run."""
    with EmbeddingFile(output) as file:
        return dict(Counter(str(status) for status in file.status.tolist()))


def committed(output: Path) -> tuple[int, int]:
    """Rows in the segments of an unfinished run: embedded, and with another outcome."""
    from runtime.storage.runfolder import folder_of, read_plan

    plan = read_plan(folder_of(output))
    assert plan is not None
    parts = list(read_segments(folder_of(output), plan.plan_id, plan.rows))
    embedded = np.concatenate([np.empty(0, bool), *(part.status == Status.EMBEDDED for part in parts)])
    return int(embedded.sum()), int((~embedded).sum())


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_photo_that_cannot_be_read_at_once_is_read_again(
    fault: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    with at_open(folder / BROKEN, failing(fault, last=2)):
        answer = summary(process(tiny_engine, folder, tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": PHOTOS}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_stops_the_run_and_the_same_command_goes_on(
    fault: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.h5"
    with at_open(folder / BROKEN, failing(fault)):
        stopped = process(tiny_engine, folder, output)
    assert stopped.returncode == 1
    for text in ("E-MACHINE", str(folder / BROKEN), fault, "same command again", "--exclude"):
        assert text in stopped.stderr
    assert not output.exists()
    assert committed(output)[1] == 0
    answer = summary(process(tiny_engine, folder, output))
    assert answer["outcomes"] == {"embedded": PHOTOS}


@pytest.mark.slow
def test_a_photo_on_a_bad_sector_is_left_out_by_name_and_tried_again_by_retry(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.h5"
    with at_open(folder / BROKEN, failing("EIO")):
        stopped = process(tiny_engine, folder, output)
        pattern = shlex.split(re.search(r"--exclude (\S+)", stopped.stderr)[1])[0]  # type: ignore[index]
        answer = summary(process(tiny_engine, folder, output, "--exclude", pattern))
    assert answer["outcomes"] == {"embedded": PHOTOS - 1, "unreadable": 1}
    with h5py.File(output) as file:
        assert [bytes(detail).decode() for detail in file["outcomes/detail"][:] if detail] == [
            f"left out by --exclude {pattern}"
        ]
    assert summary(process(tiny_engine, folder, output, "--retry"))["outcomes"] == {"embedded": PHOTOS}


@pytest.mark.slow
def test_a_single_photo_without_permission_is_an_outcome(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    with at_open(folder / BROKEN, failing("EACCES")):
        answer = summary(process(tiny_engine, folder, tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": PHOTOS - 1, "unreadable": 1}


@pytest.mark.slow
def test_a_run_stops_if_no_photo_can_be_opened_any_more(
    folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ticket that ran out refuses every photo, also those that were read before."""
    output, real = tmp_path / "o.h5", os.open
    refusing: list[bool] = []

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        name = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
        if name.endswith(BROKEN):
            refusing.append(True)
        if refusing and name.endswith(".jpg"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        stopped = process(tiny_engine, folder, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert committed(output)[1] == 0
    assert summary(process(tiny_engine, folder, output))["outcomes"] == {"embedded": PHOTOS}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["", "b"])
def test_a_folder_that_is_moved_away_stops_the_run_and_the_next_run_resumes(
    which: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    moved, output = folder / which, tmp_path / "o.h5"

    def move() -> None:
        moved.rename(tmp_path / "away")
        folder.mkdir(exist_ok=True)

    with at_open(folder / BROKEN, once(move)):
        stopped = process(tiny_engine, folder, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert committed(output)[1] == 0
    if not which:
        moved.rmdir()
        (tmp_path / "away").rename(moved)
        assert summary(process(tiny_engine, folder, output))["outcomes"] == {"embedded": PHOTOS}
    else:  # the folder stays away: now its photos are known to be missing
        embedded = PHOTOS - 20 + max(0, committed(output)[0] - 20)  # those that were read before
        answer = summary(process(tiny_engine, folder, output))
        assert answer["outcomes"] == {"embedded": embedded, "unreadable": PHOTOS - embedded}


@pytest.mark.slow
def test_a_single_photo_that_is_deleted_during_the_run_is_an_outcome(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    with at_open(folder / BROKEN, once((folder / BROKEN).unlink)):
        answer = summary(process(tiny_engine, folder, tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": PHOTOS - 1, "unreadable": 1}


@pytest.mark.slow
def test_photos_of_a_list_that_never_existed_are_outcomes(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    paths = [f"{folder}/a/{number:02d}.jpg" for number in range(20)]
    paths += [f"{folder}/{place}/{number}.jpg" for place in ("never", "b/25.jpg") for number in range(100)]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    answer = summary(process(tiny_engine, f"@{tmp_path / 'list.txt'}", tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": 20, "unreadable": 200}


@pytest.mark.slow
def test_another_device_below_the_same_path_stops_the_run(
    folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, real, gone = tmp_path / "o.h5", os.stat, list[bool]()

    def status(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        info = real(path, *arguments, **options)
        if gone and isinstance(path, (str, bytes)) and os.fsdecode(path) == str(folder):
            return os.stat_result([*info[:2], info.st_dev + 1, *info[3:]])
        return info

    def leave() -> None:
        gone.append(True)
        (folder / BROKEN).unlink()

    monkeypatch.setattr(os, "stat", status)
    with at_open(folder / BROKEN, once(leave)):
        stopped = process(tiny_engine, folder, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert str(folder) in stopped.stderr
    assert committed(output)[1] == 0


@pytest.fixture
def mounted(folder: Path) -> Iterator[Path]:
    """The folder b of the photos as a disk of its own."""
    disk = folder / "b"
    photos = {path.name: path.read_bytes() for path in disk.iterdir()}
    mount = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"nothing can be mounted here: {mount.stderr.strip()}")
    for name, data in photos.items():
        (disk / name).write_bytes(data)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], capture_output=True)


def unmount(disk: Path) -> None:
    """Let a disk go away. Its folder stays, empty."""
    subprocess.run(["umount", "-l", str(disk)], check=True)
    for path in disk.iterdir():
        path.unlink()


def assert_stops_until_the_disk_is_back(
    command: Callable[[], Any], disk: Path, photo: Path, output: Path, *, whole: bool = False
) -> None:
    """A disk goes away before a photo is opened: the command stops, and so does the same one until the disk is back.

    Args:
        command: runs the command.
        disk: where it is mounted; it is mounted again at the end.
        photo: a photo on the disk.
        output: the embedding file, which the command does not finish.
        whole: whether there is an embedding file before, which the command does not change.
    """
    saved = shutil.copytree(disk, output.parent / "saved")
    before = output.read_bytes() if whole else b""
    with at_open(photo, once(lambda: unmount(disk))):
        stopped = command()
    assert "does not lie on the disk" in stopped.stderr
    for ended in (stopped, command()):
        assert ended.returncode == 1
        assert "E-SOURCE" in ended.stderr
        assert any(str(place) in ended.stderr for place in (disk, photo.parent))
        assert output.read_bytes() == before if whole else not output.exists()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    shutil.copytree(saved, disk, dirs_exist_ok=True)


@pytest.mark.slow
def test_a_disk_that_is_unmounted_stops_the_run_until_it_is_back(
    mounted: Path, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.h5"
    assert_stops_until_the_disk_is_back(lambda: process(tiny_engine, folder, output), mounted, folder / BROKEN, output)
    assert committed(output)[1] == 0
    assert summary(process(tiny_engine, folder, output))["outcomes"] == {"embedded": PHOTOS}


def in_list(tmp_path: Path, *folders: Path) -> str:
    """Name a list of all photos in folders, as an argument."""
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for folder in folders for path in sorted(folder.iterdir())))
    return f"@{tmp_path / 'list.txt'}"


@pytest.mark.slow
def test_another_process_notices_that_a_folder_of_a_list_disappeared(folder: Path, tmp_path: Path) -> None:
    listed = scan([in_list(tmp_path, folder / "a", folder / "b")])
    copy: FileSource = pickle.loads(pickle.dumps(listed.with_names(())))
    source = copy.with_names(listed.names)
    assert source.read(0)
    (folder / "b").rename(folder / "b2")
    with raises(SourceError, folder / "b"):
        source.read(39)


def test_a_folder_of_a_list_is_missed_if_photos_of_another_folder_were_read_since(folder: Path, tmp_path: Path) -> None:
    source = scan([in_list(tmp_path, folder / "a", folder / "b")])
    assert source.read(20)  # b/20.jpg
    assert source.read(0)  # a/00.jpg
    shutil.rmtree(folder / "b")
    (folder / "b").mkdir()
    with raises(SourceError, folder / "b", "is empty"):
        source.read(39)


@pytest.mark.slow
def test_the_run_of_a_list_goes_on_when_its_folder_is_back(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output, photos = tmp_path / "o.h5", in_list(tmp_path, folder / "a", folder / "b")
    with at_open(folder / BROKEN, once(lambda: (folder / "b").rename(folder / "b2"))):
        stopped = process(tiny_engine, photos, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert committed(output)[1] == 0
    (folder / "b2").rename(folder / "b")
    assert summary(process(tiny_engine, photos, output))["outcomes"] == {"embedded": 40}


@pytest.mark.slow
def test_add_and_retry_of_a_list_stop_too_if_a_folder_disappears(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output, photos = tmp_path / "o.h5", in_list(tmp_path, folder / "a", folder / "b")
    with at_open(folder / BROKEN, failing("EACCES")):
        assert summary(process(tiny_engine, photos, output))["outcomes"] == {"embedded": 39, "unreadable": 1}
    with at_open(folder / BROKEN, once(lambda: (folder / "b").rename(folder / "b2"))):
        assert "E-SOURCE" in process(tiny_engine, photos, output, "--retry").stderr
    (folder / "b2").rename(folder / "b")
    assert summary(process(tiny_engine, photos, output, "--retry"))["outcomes"] == {"embedded": 40}
    more = in_list(tmp_path, folder / "a", folder / "c")
    with at_open(folder / "c" / "50.jpg", once(lambda: (folder / "c").rename(folder / "c2"))):
        assert "E-SOURCE" in facemill("add", output, more).stderr
    (folder / "c2").rename(folder / "c")
    assert facemill("add", output, more).returncode == 0
    assert outcomes(output) == {"1": 60}


@pytest.mark.slow
@pytest.mark.parametrize("named", ["list", "photos", "folders"])
def test_a_disk_behind_a_link_that_is_unmounted_stops_the_run_until_it_is_back(
    named: str, mounted: Path, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """However its photos are named: the disk is not mounted below their folder."""
    output, photos = tmp_path / "o.h5", tmp_path / "named"
    photos.mkdir()
    (folder / "a").rename(photos / "a")
    (photos / "link").symlink_to(mounted)
    names: tuple[object, ...] = (photos / "a", photos / "link")
    if named == "photos":
        names = tuple(path for part in ("a", "link") for path in sorted((photos / part).iterdir()))
    elif named == "list":
        names = (in_list(tmp_path, photos / "a", photos / "link"),)
    assert_stops_until_the_disk_is_back(
        lambda: process(tiny_engine, names[0], output, *names[1:]), mounted, photos / "link" / "25.jpg", output
    )
    assert committed(output)[1] == 0
    assert summary(process(tiny_engine, names[0], output, *names[1:]))["outcomes"] == {"embedded": 40}


@pytest.fixture
def links(folder: Path, tmp_path: Path) -> Path:
    """A folder with the photos a, and links to each photo of b, some by another link."""
    photos = tmp_path / "linked"
    (photos / "links").mkdir(parents=True)
    (tmp_path / "between").symlink_to(folder / "b")
    (folder / "a").rename(photos / "a")
    for number, path in enumerate(sorted((folder / "b").iterdir())):
        (photos / "links" / path.name).symlink_to(tmp_path / "between" / path.name if number % 3 else path)
    return photos


@pytest.mark.slow
@pytest.mark.parametrize("named", ["folder", "list", "photos"])
def test_photos_that_are_links_to_a_disk_that_is_unmounted_stop_the_run_until_it_is_back(
    named: str, mounted: Path, links: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """The folder of the links stays, and so do the other photos: only the links lead nowhere."""
    output, names = tmp_path / "o.h5", tuple[object, ...]([links])
    if named == "photos":
        names = tuple(sorted(links.rglob("*.jpg")))
    elif named == "list":
        names = (in_list(tmp_path, links / "a", links / "links"),)
    assert_stops_until_the_disk_is_back(
        lambda: process(tiny_engine, names[0], output, *names[1:]), mounted, links / "links" / "25.jpg", output
    )
    assert committed(output)[1] == 0
    assert summary(process(tiny_engine, names[0], output, *names[1:]))["outcomes"] == {"embedded": 40}


@pytest.mark.slow
def test_a_link_of_a_list_that_the_scan_did_not_look_at_counts_once_a_photo_was_read(
    mounted: Path, links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.sources.scan._LOOKED_AT", 1)
    source = scan([in_list(tmp_path, links / "a", links / "links")])
    assert source.read(0)
    assert source.read(20)
    assert source.read(1)  # the last one, which stays
    unmount(mounted)
    with raises(SourceError, mounted):
        source.read(21)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["empty", "missing"])
def test_photos_that_are_links_to_a_folder_that_disappears_stop_the_run(
    left: str, folder: Path, links: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """On the disk of the other photos, so that no device tells it."""
    output = tmp_path / "o.h5"

    def leave() -> None:
        (folder / "b").rename(tmp_path / "away")
        if left == "empty":
            (folder / "b").mkdir()

    with at_open(links / "links" / "25.jpg", once(leave)):
        stopped = process(tiny_engine, links, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert str(folder / "b") in stopped.stderr
    assert committed(output)[1] == 0
    if left == "empty":
        (folder / "b").rmdir()
    (tmp_path / "away").rename(folder / "b")
    assert summary(process(tiny_engine, links, output))["outcomes"] == {"embedded": 40}


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["target", "link"])
def test_a_single_link_that_leads_nowhere_is_an_outcome(
    gone: str, folder: Path, links: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    deleted = folder / "b" / "25.jpg" if gone == "target" else links / "links" / "25.jpg"
    with at_open(links / "links" / "25.jpg", once(deleted.unlink)):
        answer = summary(process(tiny_engine, links, tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": 39, "unreadable": 1}


@pytest.mark.slow
@pytest.mark.parametrize("named", ["folder", "list"])
def test_a_folder_that_is_replaced_by_an_empty_one_stops_the_run(
    named: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """On the same device, as a bind mount or an automount that goes away may leave it."""
    output = tmp_path / "o.h5"
    photos = folder if named == "folder" else in_list(tmp_path, *sorted(folder.iterdir()))

    def leave() -> None:
        (folder / "b").rename(tmp_path / "away")
        (folder / "b").mkdir()

    with at_open(folder / "b" / "25.jpg", once(leave)):
        stopped = process(tiny_engine, photos, output)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert str(folder / "b") in stopped.stderr
    assert committed(output)[1] == 0
    (folder / "b").rmdir()
    (tmp_path / "away").rename(folder / "b")
    assert summary(process(tiny_engine, photos, output))["outcomes"] == {"embedded": PHOTOS}


@pytest.mark.slow
def test_a_folder_whose_only_photo_is_deleted_is_an_outcome(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (folder / "alone").mkdir()
    alone = (folder / BROKEN).rename(folder / "alone" / "1.jpg")
    with at_open(alone, once(alone.unlink)):
        answer = summary(process(tiny_engine, folder, tmp_path / "o.h5"))
    assert answer["outcomes"] == {"embedded": PHOTOS - 1, "unreadable": 1}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["EIO", "ESTALE"])
def test_a_folder_that_cannot_be_listed_for_its_disk_is_not_passed_over(
    fault: str, folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def listed(path: Any) -> Any:
        if os.fsdecode(path) == str(folder / "b"):
            failing(fault)(1)
        return real(path)

    monkeypatch.setattr(os, "scandir", listed)
    for stopped in (
        process(tiny_engine, folder, tmp_path / "o.h5"),
        facemill("plan", folder, "--engine", tiny_engine, "--align", "none"),
    ):
        assert stopped.returncode == 1
        assert "E-MACHINE" in stopped.stderr
        assert str(folder / "b") in stopped.stderr


@pytest.mark.slow
def test_a_file_without_ending_that_cannot_be_looked_at_is_not_passed_over(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / BROKEN, folder / "a" / "picture")
    with at_open(folder / "a" / "picture", failing("EMFILE")):
        stopped = process(tiny_engine, folder, tmp_path / "o.h5")
    assert stopped.returncode == 1
    assert "E-MACHINE" in stopped.stderr
    assert "ulimit -n" in stopped.stderr


@pytest.mark.slow
def test_search_compare_and_add_stop_too_and_change_nothing(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    summary(process(tiny_engine, folder / "a", output))
    before, broken, whole = output.read_bytes(), folder / BROKEN, folder / "a" / "01.jpg"
    with at_open(broken, failing("ESTALE")):
        for stopped in (
            facemill("search", output, whole, broken),
            facemill("compare", whole, broken, "--file", output),
            facemill("add", output, folder / "b"),
        ):
            assert stopped.returncode == 1
            assert "E-MACHINE" in stopped.stderr
            assert str(broken) in stopped.stderr
    assert output.read_bytes() == before
    assert facemill("add", output, folder / "b").returncode == 0
    assert outcomes(output) == {"1": 40}


@pytest.fixture
def people(folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished file of all photos, and a network that reads ages and genders from colours."""
    (tmp_path / "models").mkdir()
    write_attribute_model(tmp_path / "models")
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path / "models"))
    summary(process(tiny_engine, folder, tmp_path / "people.h5"))
    return tmp_path / "people.h5"


def attributes(file: Path, *options: object) -> Any:
    return facemill("attributes", file, "--json", *options)


def unread_photos(file: Path) -> list[str]:
    with EmbeddingFile(file) as gallery:
        assert gallery.attributes is not None
        rows = np.flatnonzero(unread_rows(gallery.attributes, ["age", "gender"]))
        return gallery.names(rows.tolist())


@pytest.mark.slow
def test_attributes_stop_if_a_disk_is_unmounted_until_it_is_back(mounted: Path, folder: Path, people: Path) -> None:
    assert_stops_until_the_disk_is_back(lambda: attributes(people), mounted, folder / BROKEN, people, whole=True)
    assert summary(attributes(people))["unread"] == 0
    assert unread_photos(people) == []


@pytest.mark.slow
@pytest.mark.parametrize("left", ["empty", "missing"])
def test_attributes_stop_if_a_folder_disappears(left: str, folder: Path, people: Path, tmp_path: Path) -> None:
    before = people.read_bytes()

    def leave() -> None:
        (folder / "b").rename(tmp_path / "away")
        if left == "empty":
            (folder / "b").mkdir()

    with at_open(folder / "b" / "30.jpg", once(leave)):
        stopped = attributes(people)
    assert stopped.returncode == 1
    assert "E-SOURCE" in stopped.stderr
    assert people.read_bytes() == before
    if left == "empty":
        (folder / "b").rmdir()
    (tmp_path / "away").rename(folder / "b")
    assert summary(attributes(people))["unread"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_stops_attributes_and_the_same_command_goes_on(
    fault: str, folder: Path, people: Path
) -> None:
    before = people.read_bytes()
    with at_open(folder / "c" / "55.jpg", failing(fault)):  # in the second batch
        stopped = attributes(people)
    assert stopped.returncode == 1
    for text in ("E-MACHINE", str(folder / "c" / "55.jpg"), fault, "same command again", "--exclude"):
        assert text in stopped.stderr
    assert people.read_bytes() == before
    again: list[int] = []
    with at_open(folder / "a" / "00.jpg", again.append):
        assert summary(attributes(people))["unread"] == 0
    assert again == []  # the first batch was kept


@pytest.mark.slow
def test_attributes_go_on_without_a_photo_on_a_bad_sector(folder: Path, people: Path) -> None:
    with at_open(folder / BROKEN, failing("EIO")):
        stopped = attributes(people)
        pattern = shlex.split(re.search(r"--exclude (\S+)", stopped.stderr)[1])[0]  # type: ignore[index]
        assert summary(attributes(people, "--exclude", pattern))["unread"] == 1
    assert unread_photos(people) == [BROKEN]
    assert summary(attributes(people))["unread"] == 0
    refused = attributes(people, "--exclude", pattern, "--from", "embeddings")
    assert refused.returncode == 2
    assert "--exclude" in refused.stderr


@pytest.mark.slow
def test_a_disk_that_fails_at_any_read_loses_no_photo(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    """Below the C library: one error at some reads of the photos, then every read from one on."""
    (tmp_path / "streams").mkdir()
    # Each photo ten times: more than the stages hold at once, so that some are embedded when the disk fails for good.
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{path}\n" * 10 for path in sorted(folder.rglob("*.jpg"))))
    options = ("--engine", tiny_engine, "--align", "none", "--workers", 1, "--batch-size", 4, "--json")
    with Laboratory(tmp_path / "streams") as laboratory:
        for mode, number, code in ((2, 1, errno.EIO), (2, 58, errno.ESTALE), (3, 910, errno.ETIMEDOUT)):
            output = tmp_path / f"{mode}-{number}.h5"
            arguments = [*map(str, ("process", f"@{listing}", "-o", output, *options))]
            ended = laboratory.run(arguments, folder, Fault(mode, frozenset({Kind.READ}), number, code))
            if mode == 3:
                assert ended.code == 1
                assert "E-MACHINE" in ended.stderr
                embedded, others = committed(output)
                assert embedded > 0  # the segment in hand
                assert others == 0
                ended = laboratory.run(arguments, folder)
            assert ended.code == 0, ended.stderr
            assert json.loads(ended.stdout)["outcomes"] == {"embedded": 10 * PHOTOS}


class Fails(MemorySource):
    """A source whose disk does not answer; the caller stops the run meanwhile."""

    control: RunControl

    def read(self, row: int) -> bytes:
        type(self).control.stop()
        raise MachineError("the disk does not answer")


def test_a_stop_ends_the_pause_before_the_next_try(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSES_S", (10_000.0,))
    (tmp_path / "o.h5.parts").mkdir()
    Fails.control = RunControl()
    request = Request((), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules(align="none"))
    task = Task(request, "plan", tmp_path / "o.h5.parts", Settings(16, 1, 1, 1, 1))
    context = RunContext(Fails([b""] * 20), Fails.control, clocks=task.clocks())
    with pytest.raises(Interrupted):
        embed_task(task, np.arange(20), context)
