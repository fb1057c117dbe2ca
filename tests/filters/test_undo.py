"""Undoing and replacing a folder of filtered photos removes nothing of anybody else, also after a kill."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

import runtime
from runtime.errors import ConfigError, OutputExistsError
from tests.support.attribute_files import embed_with_attributes
from tests.support.errors import USAGE, assert_refused, raises
from tests.support.facemill_command import facemill, start_facemill


@pytest.fixture
def file(samples: Path, tmp_path: Path, tiny_engine: Path) -> Path:
    """A file whose photos the test may change."""
    shutil.copytree(samples / "photos", tmp_path / "photos", symlinks=True)
    return embed_with_attributes(tmp_path, tiny_engine)


def fill(file: Path, mode: str, *, force: bool = False) -> Path:
    """Fill `out` beside the file with all photos that have an age."""
    runtime.filter(file, age="0-150", folders=file.parent / "out", mode=mode, force=force)
    return file.parent / "out"


def placed(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "photos").rglob("*.jpg"))


def original(file: Path, folder: Path, photo: Path) -> Path:
    return file.parent / "photos" / photo.relative_to(folder / "photos")


def unfinish(folder: Path, lines: int | None = None) -> None:
    """Make a folder look as after a kill: the mark unfinished, and the receipt without its end."""
    mark = json.loads((folder / ".facemill.json").read_text())
    (folder / ".facemill.json").write_text(json.dumps({**mark, "finished": False}))
    if lines is not None:
        receipt = folder / "receipt.jsonl"
        kept = receipt.read_bytes().splitlines(keepends=True)[:lines]
        receipt.write_bytes(b"".join(kept))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    "place", ["note.txt", "photos/note.txt", "photos/P00/deep/note.txt", "photos.partial/note.txt"]
)
def test_a_folder_with_files_of_a_user_is_not_replaced(file: Path, killed: bool, place: str) -> None:
    folder = fill(file, "symlink")
    note = folder / place
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("mine")
    photos = placed(folder)
    if killed:
        unfinish(folder)
    with raises(OutputExistsError, "note.txt" if place.count("/") < 3 else "deep"):
        fill(file, "symlink", force=not killed)
    assert note.read_text() == "mine"
    assert placed(folder) == photos
    note.unlink()
    for empty in list(note.parents)[: place.count("/")]:
        if not os.listdir(empty):
            empty.rmdir()
    assert placed(fill(file, "symlink", force=not killed)) == photos


@pytest.mark.slow
def test_an_edited_copy_and_a_last_hard_link_are_not_replaced(file: Path) -> None:
    folder = fill(file, "copy")
    copy = placed(folder)[0]
    copy.write_bytes(b"edited")
    with raises(OutputExistsError, folder):
        fill(file, "copy", force=True)
    assert copy.read_bytes() == b"edited"
    copy.unlink()
    fill(file, "hardlink", force=True)
    link = placed(folder)[0]
    original(file, folder, link).unlink()
    content = link.read_bytes()
    with raises(OutputExistsError, folder):
        fill(file, "copy", force=True)
    assert link.read_bytes() == content


@pytest.mark.slow
def test_a_link_in_the_place_of_the_photos_leads_nowhere(file: Path, tmp_path: Path) -> None:
    folder = fill(file, "copy")
    elsewhere = (folder / "photos").rename(tmp_path / "elsewhere")
    (folder / "photos").symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    result = facemill("filter", "--undo", folder / "receipt.jsonl")
    assert result.returncode == 3, result.stderr
    with raises(OutputExistsError, folder):
        fill(file, "copy", force=True)
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.slow
def test_undo_needs_the_mark(file: Path) -> None:
    folder = fill(file, "copy")
    (folder / ".facemill.json").unlink()
    photos = placed(folder)
    with raises(ConfigError, ".facemill.json"):
        runtime.undo_filter(folder / "receipt.jsonl")
    assert placed(folder) == photos


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing"])
def test_a_receipt_is_a_regular_file(file: Path, tmp_path: Path, kind: str) -> None:
    folder = fill(file, "copy")
    receipt = folder / "receipt.jsonl"
    aside = receipt.rename(tmp_path / "aside")
    if kind == "link":
        receipt.symlink_to(aside)
    elif kind == "pipe":
        os.mkfifo(receipt)
    elif kind == "folder":
        receipt.mkdir()
    photos = placed(folder)
    assert_refused(facemill("filter", "--undo", receipt), "E-CONFIG", receipt)
    assert placed(folder) == photos


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_receipt_of_another_user_is_refused(file: Path) -> None:
    folder = fill(file, "copy")
    os.chown(folder / "receipt.jsonl", 12345, 12345)
    with raises(ConfigError, "another user"):
        runtime.undo_filter(folder / "receipt.jsonl")


@pytest.mark.slow
def test_the_last_copy_of_a_photo_stays(file: Path) -> None:
    folder = fill(file, "copy")
    copy = placed(folder)[0]
    name = str(copy.relative_to(folder / "photos"))
    original(file, folder, copy).unlink()
    content = copy.read_bytes()
    result = facemill("filter", "--undo", folder / "receipt.jsonl", "--json")
    assert result.returncode == 3, result.stderr
    undone = json.loads(result.stdout)
    assert (undone["kept"], undone["last"]) == ([name], [name])
    assert copy.read_bytes() == content
    copy.rename(file.parent / "rescued.jpg")
    assert facemill("filter", "--undo", folder / "receipt.jsonl").returncode == 0
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["list", "line", "photo", "original"])
def test_a_changed_folder_is_not_finished(file: Path, change: str) -> None:
    folder = fill(file, "hardlink" if change == "photo" else "symlink")
    if change == "list":
        with (folder / "photos.csv").open("a") as stream:
            stream.write("1,x\n")
    elif change == "line":
        receipt = folder / "receipt.jsonl"
        lines = receipt.read_bytes().splitlines(keepends=True)
        receipt.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    elif change == "photo":
        with placed(folder)[0].open("ab") as photo:
            photo.write(b"more")
    else:
        os.unlink(os.readlink(placed(folder)[0]))
    mode = "hardlink" if change == "photo" else "symlink"
    with raises(OutputExistsError, folder):
        fill(file, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_a_folder_is_no_proof_of_itself(file: Path, mode: str) -> None:
    folder = fill(file, mode)
    content = {path: path.read_bytes() for path in placed(folder)}
    shutil.rmtree(file.parent / "photos")
    (file.parent / "photos").symlink_to(folder / "photos")
    undone = runtime.undo_filter(folder / "receipt.jsonl")
    assert undone.removed == 0
    assert len(undone.last) == len(content)
    assert {path: path.read_bytes() for path in placed(folder)} == content


@pytest.mark.slow
def test_an_edited_list_of_a_killed_filter_stays(file: Path) -> None:
    folder = fill(file, "symlink")
    unfinish(folder, lines=len((folder / "receipt.jsonl").read_bytes().splitlines()) - 1)
    with (folder / "photos.csv").open("a") as stream:
        stream.write("mine")
    with raises(OutputExistsError, "photos.csv"):
        fill(file, "symlink")
    assert runtime.undo_filter(folder / "receipt.jsonl").kept == ("photos.csv",)
    assert (folder / "photos.csv").read_text().endswith("mine")


@pytest.mark.slow
def test_undo_that_was_killed_before_the_folder_went_is_done(file: Path) -> None:
    folder = fill(file, "symlink")
    receipt = folder / "receipt.jsonl"
    runtime.undo_filter(receipt)
    folder.mkdir()
    result = facemill("filter", "--undo", receipt, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["already"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_copy_is_as_private_as_its_photo(file: Path, mode: int) -> None:
    file.chmod(0o640)
    for photo in (file.parent / "photos").rglob("*.jpg"):
        photo.chmod(mode)
    umask = os.umask(0o022)
    try:
        folder = fill(file, "copy")
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(os.lstat(photo).st_mode) for photo in placed(folder)} == {mode}


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        '{"photo": "a", "seen": [1, 2]}',
        '{"photo": "a", "seen": [1, 2, 1e999]}',
        '{"photo": "a"}',
        '{"photo": 3, "seen": [1, 2, 3]}',
        '{"folder": "../a"}',
        '{"photo": "/etc/passwd", "seen": [1, 2, 3]}',
        '{"photo": "a\\u0000b", "seen": [1, 2, 3]}',
        '{"photo": "\\ud800", "seen": [1, 2, 3]}',
        '{"end": {"photos": 1}}',
        "{}",
        "[]",
        "null",
        "no json",
        "[" * 100_000,
        "",
    ],
)
def test_a_line_that_is_edited_by_hand_is_named(file: Path, line: str) -> None:
    folder = fill(file, "copy")
    receipt = folder / "receipt.jsonl"
    lines = receipt.read_text().splitlines()
    receipt.write_text("\n".join([*lines[:3], line, *lines[4:], ""]))
    photos = placed(folder)
    assert_refused(facemill("filter", "--undo", receipt), "E-CONFIG", receipt, "line 4")
    assert placed(folder) == photos
    assert_refused(facemill("filter", file, "--age", "0-150", "--folders", folder, "--force"), "E-CONFIG", "line 4")
    assert placed(folder) == photos


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
@pytest.mark.parametrize("torn", [b"", b'{"photo": "P0'])
def test_undo_of_a_killed_filter_removes_what_it_placed(file: Path, mode: str, torn: bytes) -> None:
    folder = fill(file, mode)
    receipt = folder / "receipt.jsonl"
    lines = receipt.read_bytes().splitlines(keepends=True)
    unfinish(folder, lines=len(lines) - 2)  # the list is begun
    receipt.write_bytes(receipt.read_bytes() + torn)
    (folder / "photos.csv").unlink()
    (folder / "photos.csv.partial").write_text("row,pa")
    stage(file, folder, mode)
    undone = runtime.undo_filter(receipt)
    assert undone.removed == sum(b'"photo":' in line for line in lines)
    assert not folder.exists()


def stage(file: Path, folder: Path, mode: str) -> tuple[Path, Path]:
    """Put the first photo of the filter into the staging folder, as a killed filter leaves it."""
    lines = (folder / "receipt.jsonl").read_text().splitlines()
    first = next(json.loads(line)["photo"] for line in lines if '"photo"' in line)
    staged = folder / "photos.partial" / "0"
    staged.parent.mkdir()
    {"symlink": os.symlink, "hardlink": os.link, "copy": shutil.copy2}[mode](file.parent / "photos" / first, staged)
    return file.parent / "photos" / first, staged


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_a_staged_photo_whose_original_is_gone_stays(file: Path, mode: str) -> None:
    folder = fill(file, mode)
    photo, staged = stage(file, folder, mode)
    placed_photo = folder / "photos" / photo.relative_to(file.parent / "photos")
    placed_photo.unlink()  # the kill came before the photo got its place
    unfinish(folder, lines=len((folder / "receipt.jsonl").read_bytes().splitlines()) - 1)
    content = photo.read_bytes()
    photo.unlink()
    with raises(OutputExistsError, "photos.partial/0"):
        fill(file, mode)
    undone = runtime.undo_filter(folder / "receipt.jsonl")
    assert undone.last == undone.kept == ("photos.partial/0",)
    assert staged.read_bytes() == content
    staged.rename(photo)
    assert runtime.undo_filter(folder / "receipt.jsonl").kept == ()
    assert not folder.exists()


@pytest.mark.slow
def test_half_of_a_staged_copy_is_removed(file: Path) -> None:
    folder = fill(file, "copy")
    photo, staged = stage(file, folder, "copy")
    staged.write_bytes(photo.read_bytes()[:100])
    unfinish(folder)
    assert placed(fill(file, "copy"))
    assert not staged.parent.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_mark_of_another_user_is_refused(file: Path) -> None:
    folder = fill(file, "copy")
    photos = placed(folder)
    os.chown(folder / ".facemill.json", 12345, 12345)
    with raises(ConfigError, ".facemill.json"):
        runtime.undo_filter(folder / "receipt.jsonl")
    assert placed(folder) == photos


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b'{"kind": "filt'])
def test_undo_of_a_filter_that_wrote_no_header(file: Path, content: bytes) -> None:
    folder = fill(file, "symlink")
    shutil.rmtree(folder / "photos")
    (folder / "photos.csv").unlink()
    (folder / "receipt.jsonl").write_bytes(content)
    with raises(ConfigError, "line 1"):
        runtime.undo_filter(folder / "receipt.jsonl")  # the mark says that it was finished
    unfinish(folder)
    assert runtime.undo_filter(folder / "receipt.jsonl").removed == 0
    assert os.listdir(folder) == []


@pytest.mark.slow
def test_a_killed_filter_can_be_undone(file: Path) -> None:
    """Killed at whatever moment: no copy stays, and the receipt goes only with them."""
    originals = {path: path.read_bytes() for path in (file.parent / "photos").rglob("*") if path.is_file()}
    folder = file.parent / "out"
    for wanted in ("photos.partial/0", "photos/P00"):
        command = ("filter", file, "--age", "0-150", "--folders", folder, "--mode", "copy")
        with start_facemill(*command) as process:
            while process.poll() is None and not os.path.lexists(folder / wanted):
                pass
            process.kill()
        if os.path.lexists(folder / "receipt.jsonl"):
            assert facemill("filter", "--undo", folder / "receipt.jsonl").returncode == 0
        assert not placed(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert {path: path.read_bytes() for path in originals} == originals


@pytest.mark.skipif(
    not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev, reason="needs two disks"
)
def test_hard_links_to_another_disk_leave_nothing(file: Path) -> None:
    folder = Path("/dev/shm") / f"facemill-{os.getpid()}"
    try:
        with raises(ConfigError, "--mode"):
            runtime.filter(file, age="0-150", folders=folder, mode="hardlink")
        assert not folder.exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_messages_name_what_is_missing_or_too_much(file: Path) -> None:
    assert_refused(facemill("filter", file), USAGE, "--gender", "--age")
    assert_refused(facemill("filter", file, "--unsure", "drop"), USAGE, "filter option")
    assert_refused(facemill("filter", "--age", "3"), USAGE, "FILE")
    assert_refused(facemill("filter", file, "--undo", "r"), USAGE, "FILE", "--undo")
    assert_refused(facemill("filter", "--undo", "r", "--force"), USAGE, "--force", "--undo")
    assert_refused(facemill("filter", file, "--age", "200-"), "E-CONFIG", "200-", "150")


def test_attributes_may_be_named_with_spaces(tmp_path: Path) -> None:
    result = facemill("process", tmp_path / "none", "-o", tmp_path / "o.h5", "--attributes", "age, gender")
    assert_refused(result, "E-SOURCE", tmp_path / "none")  # the photos are missing, and nothing else is wrong
