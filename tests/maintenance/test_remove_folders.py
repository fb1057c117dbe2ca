"""A removal goes by the receipt of a folder: last copies and edits of other people stay, and the person goes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from runtime.api.jobs import remove as remove_photos
from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import write_folders
from runtime.receipts.kinds import KINDS
from runtime.storage.derived import record_page
from runtime.storage.file import EmbeddingFile
from runtime.tree import Tree
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.facemill_command import facemill as run

NAMES = [b"a/1.jpg", b"a/2.jpg", b"b/3.jpg", b"c/4.jpg"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "people.h5", people_rows([4]), NAMES)
    write_photos(path, NAMES)
    return path


def fill(file: Path, mode: str) -> Path:
    """Fill `out` beside the file with two clusters, and return the folder of the originals."""
    clusters = number_clusters(np.array([0, 0, 1, 1]), np.ones(4, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings:
        write_folders(file.parent / "out", embeddings, clusters, mode=mode, force=False)
        return Path(os.fsdecode(embeddings.root))


def photos_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.jpg")}


def remove(file: Path) -> str:
    """Remove the photos in `a`; returns what the command says."""
    result = run("remove", file, "--path", "a/", "--yes")
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_a_folder_whose_originals_are_there_goes_with_the_person(file: Path, mode: str) -> None:
    originals = fill(file, mode)
    remove(file)
    assert not (file.parent / "out").exists()
    assert photos_in(originals) == {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_the_last_copies_of_the_removed_person_go(file: Path, mode: str) -> None:
    """As the help says: delete the photos first."""
    shutil.rmtree(fill(file, mode) / "a")
    remove(file)
    assert not (file.parent / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_the_last_copies_of_other_people_stay_and_are_named(file: Path, mode: str) -> None:
    shutil.rmtree(fill(file, mode) / "b")
    said = remove(file)
    assert photos_in(file.parent / "out") == {"3.jpg", "4.jpg"}  # and nothing of the removed person
    assert str(file.parent / "out") in said
    assert "3.jpg" in said
    assert "its original is gone" in said


@pytest.mark.slow
def test_an_edit_that_size_and_newest_time_hide_stays_and_is_named(file: Path) -> None:
    fill(file, "copy")
    edited = next((file.parent / "out").rglob("4.jpg"))
    edited.write_bytes(bytes(edited.stat().st_size))
    os.utime(edited, ns=(10**18, 10**18))
    said = remove(file)
    assert edited.exists()
    assert "4.jpg" in said
    assert "changed" in said


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_in_a_copy_of_everything_the_copied_folder_goes(file: Path, tmp_path: Path, mode: str) -> None:
    """The photos of the copy have other inodes than the receipt names."""
    fill(file, mode)
    shutil.copytree(file.parent, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("copy"))
    remove(tmp_path / "copy" / file.name)
    assert not (tmp_path / "copy" / "out").exists()
    assert (file.parent / "out").exists()


def erased(file: Path) -> int:
    """How many photos and pages the last receipt counts in folders that stay."""
    receipt = max(file.parent.glob("*.removed-*.json"), key=os.path.getmtime)
    return int(json.loads(receipt.read_text()).get("erased_in_folders_that_stay", 0))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
@pytest.mark.parametrize("originals", ["there", "deleted"])
def test_the_person_goes_from_a_folder_into_which_a_user_put_a_file(file: Path, mode: str, originals: str) -> None:
    top = fill(file, mode)
    if originals == "deleted":
        shutil.rmtree(top / "a")
    note = file.parent / "out" / "cluster-00001" / "note.jpg"
    note.write_text("mine")
    said = remove(file)
    assert photos_in(file.parent / "out") == {"note.jpg", "3.jpg", "4.jpg"}
    assert note.read_text() == "mine"
    assert f"{file.parent / 'out'}" in said
    assert erased(file) == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_an_edited_photo_of_the_removed_person_stays_and_is_named(file: Path, mode: str) -> None:
    """Also one that kept its size and time, and a last hard link that was edited in place."""
    shutil.rmtree(fill(file, mode) / "a")
    edited = file.parent / "out" / "cluster-00001" / "1.jpg"
    status = edited.stat()
    edited.write_bytes(bytes(status.st_size) if mode == "copy" else b"edited")
    if mode == "copy":
        os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
        (file.parent / "out" / "note.txt").write_text("mine")
    said = remove(file)
    assert photos_in(file.parent / "out") == {"1.jpg", "3.jpg", "4.jpg"}
    assert str(edited) in said
    assert erased(file) == 1


@pytest.mark.slow
def test_what_is_left_of_a_folder_goes_with_the_next_person(file: Path) -> None:
    """It is as facemill left it, so that it does not count as changed."""
    shutil.rmtree(fill(file, "copy") / "b")
    remove(file)
    assert erased(file) == 2
    result = run("remove", file, "--path", "b/", "--yes")
    assert result.returncode == 0, result.stderr
    assert not (file.parent / "out").exists()


@pytest.mark.slow
def test_names_below_another_root_are_no_names_of_the_file(file: Path) -> None:
    """`add` can give the file a root above that of the folder, where `a/1.jpg` is somebody else's."""
    originals = fill(file, "copy")
    shutil.rmtree(originals)
    receipt = file.parent / "out" / "receipt.jsonl"
    header, *lines = receipt.read_text().splitlines(keepends=True)
    below = json.dumps({**json.loads(header), "root": str(originals / "below")}) + "\n"
    receipt.write_text("".join([below, *lines]))
    assert str(file.parent / "out") in remove(file)
    assert photos_in(file.parent / "out") == {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}
    assert erased(file) == 0


@pytest.mark.slow
def test_pages_that_nobody_changed_go_from_a_folder_that_stays(file: Path) -> None:
    result = run("cluster", file, "--threshold", 0.4, "--no-column", "--sheets", file.parent / "sheets")
    assert result.returncode == 0, result.stderr
    index = file.parent / "sheets" / "index.html"
    index.write_bytes(index.read_bytes() + b"<!-- mine -->")
    said = remove(file)
    assert [path.name for path in (file.parent / "sheets").glob("*.html")] == ["index.html"]
    assert str(index) in said
    assert erased(file) >= 1


@pytest.mark.slow
def test_keep_pages_keeps_every_copy(file: Path) -> None:
    fill(file, "copy")
    (file.parent / "out" / "note.txt").write_text("mine")
    assert run("remove", file, "--path", "a/", "--yes", "--keep-pages").returncode == 0
    assert photos_in(file.parent / "out") == {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}


@pytest.mark.slow
def test_a_copy_that_cannot_be_erased_leaves_the_removal_unfinished(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(file, "copy")
    (file.parent / "out" / "note.txt").write_text("mine")
    unlink = Tree.unlink

    def refuse(tree: Tree, name: str) -> None:
        if name.endswith("2.jpg"):
            raise OSError(errno.EIO, "the disk does not answer")
        unlink(tree, name)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "unlink", refuse)
        result = run("remove", file, "--path", "a/", "--yes")
    assert result.returncode == 3
    assert "the disk does not answer" in result.stderr
    assert photos_in(file.parent / "out") == {"2.jpg", "3.jpg", "4.jpg"}
    remove(file)
    assert photos_in(file.parent / "out") == {"3.jpg", "4.jpg"}


@pytest.mark.slow
def test_a_folder_that_a_later_look_deletes_is_not_named_as_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk does not answer in the first look at what is to be erased, which asks for a receipt of each kind."""
    fill(file, "copy")
    page = file.with_name("page.html")
    page.write_text("faces")
    record_page(file, page)  # its deletion brings the second look
    open_own, refused = Tree.open_own, list[str]()

    def refuse_once(tree: Tree, name: str) -> IO[bytes]:
        if name == "receipt.jsonl" and file.with_name("people.h5.removing").exists() and len(refused) < len(KINDS):
            refused.append(name)
            raise OSError(errno.EIO, "the disk does not answer")
        return open_own(tree, name)

    monkeypatch.setattr(Tree, "open_own", refuse_once)
    receipt = remove_photos(file, "a/")
    assert len(refused) == len(KINDS)
    assert receipt is not None
    assert str(file.parent / "out") in receipt.deleted
    assert receipt.may_still_show == ()
    assert not (file.parent / "out").exists()
    assert not file.with_name("people.h5.pages").exists()
