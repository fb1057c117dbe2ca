"""Replacing cluster folders removes what facemill wrote, unchanged, and nothing else; also after a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import check_folders, write_folders
from runtime.errors import ConfigError, OutputExistsError
from runtime.filters.undo import undo
from runtime.storage.file import EmbeddingFile
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.errors import raises

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
