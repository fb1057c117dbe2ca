"""Replacing cluster folders removes what facemill wrote, unchanged, and nothing else; also after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import _FreeNames, check_folders, write_folders
from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.filters.undo import undo
from runtime.storage.file import EmbeddingFile
from runtime.tree import Tree, place_of
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.errors import raises
from tests.support.facemill_command import ROOT

NAMES = [b"a/1.jpg", b"a/2.jpg", b"b/3.jpg", b"c/3.jpg"]
LABELS = [0, 0, 1, 1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "people.h5", people_rows([4]), NAMES)
    write_photos(path, NAMES)
    return path


def fill(file: Path, mode: str, labels: Sequence[int] = LABELS, *, force: bool = False) -> Path:
    """Fill `out` beside the file."""
    folder = file.parent / "out"
    clusters = number_clusters(np.array(labels), np.ones(len(labels), np.float32), method="whispers", threshold=0.5)
    check_folders(folder, force=force)
    with EmbeddingFile(file) as embeddings:
        write_folders(folder, embeddings, clusters, mode=mode, force=force)
    return folder


def tree(folder: Path) -> dict[str, object]:
    """Every entry below a folder: the target of a link, the content of a file, None for a folder."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def kill(folder: Path, lines: int | None = None) -> None:
    """Make a folder look as after a kill: the mark unfinished, and the receipt without its last lines."""
    mark = json.loads((folder / ".facemill.json").read_text())
    (folder / ".facemill.json").write_text(json.dumps({**mark, "finished": False}))
    receipt = folder / "receipt.jsonl"
    receipt.write_bytes(b"".join(receipt.read_bytes().splitlines(keepends=True)[:lines]))


def assert_refused(file: Path, mode: str, name: str) -> None:
    """The folder is refused by the name, and nothing in it changes, whether it is finished or not."""
    before = tree(file.parent / "out")
    for force in (True, False):
        with raises(OutputExistsError, name):
            fill(file, mode, [0] * 4, force=force)
        assert tree(file.parent / "out") == before
        kill(file.parent / "out")
        before = tree(file.parent / "out")


@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_unchanged_folders_are_replaced(file: Path, mode: str) -> None:
    photos = tree(file.parent / "photos")
    folder = fill(file, mode)
    assert len(list(folder.glob("cluster-*/*"))) == 4
    fill(file, mode, [0] * 4, force=True)
    assert sorted(path.name for path in folder.iterdir()) == [".facemill.json", "cluster-00001", "receipt.jsonl"]
    assert sorted(os.listdir(folder / "cluster-00001")) == ["1.jpg", "2.jpg", "3-2.jpg", "3.jpg"]
    assert tree(file.parent / "photos") == photos


@pytest.mark.parametrize("place", ["cluster-00001/note.txt", "cluster-00002/deep/note.txt", "cluster-00099/note.txt"])
def test_a_file_of_a_user_is_not_removed(file: Path, place: str) -> None:
    note = fill(file, "symlink") / place
    note.parent.mkdir(exist_ok=True)
    note.write_text("mine")
    assert_refused(file, "symlink", min(place, str(Path(place).parent)) if "1/" not in place else place)
    assert note.read_text() == "mine"


def test_an_edited_copy_and_an_exchanged_link_are_not_removed(file: Path, tmp_path: Path) -> None:
    copy = fill(file, "copy") / "cluster-00001" / "1.jpg"
    copy.write_bytes(b"edited")
    assert_refused(file, "copy", "cluster-00001/1.jpg")
    shutil.rmtree(tmp_path / "out")
    link = fill(file, "symlink") / "cluster-00002" / "3.jpg"
    link.unlink()
    link.symlink_to(tmp_path)
    assert_refused(file, "symlink", "cluster-00002/3.jpg")


def edit_unseen(path: Path) -> None:
    """Change the content of a file, and neither its size nor the time of its content."""
    status = path.stat()
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    ("edited", "reason"),
    [
        ("out/cluster-00001/1.jpg", "'cluster-00001/1.jpg', which was changed"),
        ("photos/a/1.jpg", "'cluster-00001/1.jpg', whose original"),  # then the copy is the last one
    ],
)
def test_an_edit_that_keeps_size_and_time_is_seen(edited: str, reason: str, file: Path) -> None:
    folder = fill(file, "copy")
    edit_unseen(file.parent / edited)
    before = tree(folder)
    with raises(OutputExistsError, reason):
        fill(file, "copy", force=True)
    assert tree(folder) == before


def test_copies_and_originals_that_were_touched_and_not_edited_are_replaced(file: Path) -> None:
    """Other permissions and another name change the time of the inode."""
    folder = fill(file, "copy")
    for photo in file.parent.rglob("*.jpg"):
        photo.chmod(0o640)
    os.link(folder / "cluster-00001" / "1.jpg", file.parent / "kept.jpg")
    fill(file, "copy", [0] * 4, force=True)
    assert len(os.listdir(folder / "cluster-00001")) == 4


def test_copies_that_nobody_touched_are_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(file, "copy")
    time.sleep(0.02)  # the clock of the inodes
    os.utime(folder / "receipt.jsonl")
    read, open_regular = list[str](), Tree.open_regular
    monkeypatch.setattr(Tree, "open_regular", lambda tree, name: read.append(name) or open_regular(tree, name))
    with raises(OutputExistsError, "--force"):
        check_folders(folder, force=False)
    check_folders(folder, force=True)
    assert set(read) == {".facemill.json", "receipt.jsonl"}
    (folder / "cluster-00001" / "1.jpg").chmod(0o640)
    check_folders(folder, force=True)
    assert "cluster-00001/1.jpg" in read


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_the_last_copy_of_a_photo_is_not_removed(file: Path, tmp_path: Path, mode: str) -> None:
    last = fill(file, mode) / "cluster-00001" / "2.jpg"
    content = last.read_bytes()
    (tmp_path / "photos" / "a" / "2.jpg").unlink()
    assert_refused(file, mode, "cluster-00001/2.jpg")
    assert last.read_bytes() == content


def test_two_links_to_a_photo_whose_original_is_gone_are_not_removed(tmp_path: Path) -> None:
    """Two faces of one photo are in two clusters: each link has another name, and both are facemill's."""
    file = write_file(tmp_path / "people.h5", people_rows([2]), [b"a.jpg", b"a.jpg"], ranks=[0, 1])
    write_photos(file, [b"a.jpg"])
    clusters = number_clusters(np.array([0, 1]), np.ones(2, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings:
        write_folders(tmp_path / "out", embeddings, clusters, mode="hardlink", min_rows=1)
        (tmp_path / "photos" / "a.jpg").rename(tmp_path / "moved.jpg")
        check_folders(tmp_path / "out", force=True)  # a name elsewhere is left
        (tmp_path / "moved.jpg").unlink()
        with raises(OutputExistsError, "cluster-00001/a.jpg"):
            write_folders(tmp_path / "out", embeddings, clusters, mode="hardlink", min_rows=1, force=True)
    assert len(list((tmp_path / "out").glob("*/a.jpg"))) == 2


@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
@pytest.mark.parametrize("lines", [0, 1, 3, 4, 6, None])
def test_after_a_kill_the_same_call_goes_on(file: Path, mode: str, lines: int | None) -> None:
    """Whatever the receipt does not name had not been placed; some photos were still staged."""
    folder = fill(file, mode)
    expected = tree(folder)
    kill(folder, lines)
    kept = [json.loads(line) for line in (folder / "receipt.jsonl").read_bytes().splitlines()]
    named = {line.get("photo", line.get("folder")) for line in kept}
    for path in sorted(folder.glob("cluster-*/*")):
        if str(path.relative_to(folder)) not in named:
            path.unlink()
    for path in folder.glob("cluster-*"):
        if path.name not in named:
            path.rmdir()
    if len(kept) > 3:
        (folder / "photos.partial").mkdir()
        photo = file.parent / "photos" / "a" / "1.jpg"
        {"symlink": os.symlink, "hardlink": os.link, "copy": shutil.copy}[mode](photo, folder / "photos.partial" / "0")
    fill(file, mode)
    assert tree(folder).keys() == expected.keys()


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_a_staged_photo_whose_original_is_gone_is_not_removed(file: Path, mode: str) -> None:
    folder = fill(file, mode)
    kill(folder)
    (folder / "photos.partial").mkdir()
    staged = (folder / "cluster-00001" / "1.jpg").rename(folder / "photos.partial" / "0")
    (file.parent / "photos" / "a" / "1.jpg").unlink()
    assert_refused(file, mode, "photos.partial/0")
    assert staged.exists()


def test_folders_without_a_receipt_are_not_replaced(file: Path) -> None:
    (fill(file, "copy") / "receipt.jsonl").unlink()
    with raises(OutputExistsError, "receipt.jsonl"):
        fill(file, "copy", force=True)
    assert len(list((file.parent / "out").glob("cluster-*/*"))) == 4


def test_a_receipt_of_cluster_folders_undoes_no_filter(file: Path) -> None:
    folder = fill(file, "copy")
    before = tree(folder)
    with raises(ConfigError, "cluster folders"):
        undo(folder / "receipt.jsonl")
    assert tree(folder) == before


def stage(folder: Path) -> Path:
    """Make the folder look as if a kill had come before the first photo got its place."""
    kill(folder)
    (folder / "photos.partial").mkdir()
    return (folder / "cluster-00001" / "1.jpg").rename(folder / "photos.partial" / "0")


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
@pytest.mark.parametrize("staged", [False, True])
def test_an_original_that_links_to_its_copy_is_gone(file: Path, mode: str, staged: bool) -> None:
    """A finder of duplicates replaced the original by a link to the copy."""
    folder = fill(file, mode)
    copy = stage(folder) if staged else folder / "cluster-00001" / "1.jpg"
    original = file.parent / "photos" / "a" / "1.jpg"
    original.unlink()
    original.symlink_to(copy)
    content = copy.read_bytes()
    assert_refused(file, mode, str(copy.relative_to(folder)))
    assert copy.read_bytes() == content


@pytest.mark.parametrize("staged", [False, True])
def test_a_copy_whose_original_has_another_content_stays(file: Path, staged: bool) -> None:
    folder = fill(file, "copy")
    copy = stage(folder) if staged else folder / "cluster-00001" / "1.jpg"
    original = file.parent / "photos" / "a" / "1.jpg"
    content = original.read_bytes()
    original.write_bytes(content[:-1] + b"?")
    assert_refused(file, "copy", str(copy.relative_to(folder)))
    original.write_bytes(content)  # at another time
    fill(file, "copy")


def test_names_that_are_gone_do_not_count(tmp_path: Path) -> None:
    """Two links to one photo: one was removed by hand, and the other goes as the original is there."""
    file = write_file(tmp_path / "people.h5", people_rows([2]), [b"a.jpg", b"a.jpg"], ranks=[0, 1])
    write_photos(file, [b"a.jpg"])
    clusters = number_clusters(np.array([0, 1]), np.ones(2, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings:
        for removed in (0, 1):
            write_folders(tmp_path / "out", embeddings, clusters, mode="hardlink", min_rows=1, force=True)
            if removed:
                (tmp_path / "out" / "cluster-00001" / "a.jpg").unlink()
        write_folders(tmp_path / "out", embeddings, clusters, mode="symlink", min_rows=1, force=True)
    assert (tmp_path / "photos" / "a.jpg").exists()


# Empties a folder, and waits after it has looked at a link, until the other process has looked at its own.
EMPTY = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from runtime.receipts.kinds import CLUSTERS as KIND
from runtime.receipts import clear
from runtime.receipts.receipt import Receipt
look = clear.Comparison.photo
def photo(self, line):
    state = look(self, line)
    print("looked", flush=True)
    sys.stdin.readline()
    return state
clear.Comparison.photo = photo
with Receipt(Path(sys.argv[1]) / "receipt.jsonl", KIND) as receipt:
    clear.remove_contents(receipt)
"""


@pytest.mark.slow
def test_two_commands_at_once_leave_the_last_link(tmp_path: Path) -> None:
    """Both have seen two names of a photo whose original is gone."""
    file = write_file(tmp_path / "people.h5", people_rows([1]), [b"a.jpg"])
    write_photos(file, [b"a.jpg"])
    clusters = number_clusters(np.array([0]), np.ones(1, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings:
        for name in ("one", "two"):
            write_folders(tmp_path / name, embeddings, clusters, mode="hardlink", min_rows=1)
    (tmp_path / "photos" / "a.jpg").unlink()
    code = EMPTY.format(root=str(ROOT))
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "one"], stdin=pipe, stdout=pipe, text=True) as one,
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "two"], stdin=pipe, stdout=pipe, text=True) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "looked\n"
        for process in (one, two):
            process.communicate("\n", timeout=60)
            assert process.returncode == 0
    assert len(list(tmp_path.glob("*/cluster-00001/a.jpg"))) == 1


def test_the_refusal_gives_the_reason_for_each_name(file: Path) -> None:
    folder = fill(file, "copy")
    (folder / "cluster-00001" / "note.txt").write_text("mine")
    (folder / "cluster-00001" / "1.jpg").write_bytes(b"edited")
    (file.parent / "photos" / "a" / "2.jpg").unlink()
    with raises(OutputExistsError, "note.txt", "1.jpg", "2.jpg") as caught:
        fill(file, "copy", force=True)
    message = str(caught.value)
    for name, reason in (("note.txt", "did not write"), ("1.jpg", "was changed"), ("2.jpg", "original is gone")):
        assert message.index(name) < message.index(reason)
    assert message.index("did not write") < message.index("1.jpg") < message.index("was changed")


def test_a_refusal_leaves_the_mark(file: Path) -> None:
    folder = fill(file, "copy")
    (folder / "cluster-00001" / "1.jpg").write_bytes(b"edited")
    clusters = number_clusters(np.array(LABELS), np.ones(4, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings, raises(OutputExistsError, "1.jpg"):
        write_folders(folder, embeddings, clusters, mode="copy", force=True)
    assert json.loads((folder / ".facemill.json").read_text())["finished"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove names in every folder")
def test_the_folder_that_the_system_refuses_is_named(file: Path) -> None:
    below = fill(file, "copy") / "cluster-00002"
    below.chmod(0o500)
    try:
        with raises(StorageError, below):
            fill(file, "copy", force=True)
    finally:
        below.chmod(0o700)


def test_an_error_names_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with Tree(tmp_path) as folder, pytest.raises(IsADirectoryError) as caught:
        folder.unlink("a/b")  # it is a folder
    assert place_of(caught.value, tmp_path) == tmp_path / "a"


def test_photos_of_one_name_need_few_looks_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cluster-00001").mkdir()
    looks, look, taken = list[object](), Tree.status, set[bytes]()
    monkeypatch.setattr(Tree, "status", lambda folder, name: looks.append(name) or look(folder, name))
    with Tree(tmp_path) as folder:
        names = _FreeNames(folder)
        for _ in range(4):
            names.begin_batch()
            batch = [names.take(b"cluster-00001/1.jpg") for _ in range(100)]
            for name in batch:
                (tmp_path / os.fsdecode(name)).touch()
            taken.update(batch)
    assert len(taken) == 400
    assert len(looks) < 500
