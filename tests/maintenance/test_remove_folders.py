"""A removal goes by the receipt of a folder: last copies and edits of other people stay, and the person goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import write_folders
from runtime.storage.file import EmbeddingFile
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
    assert "3.jpg" in photos_in(file.parent / "out")
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
