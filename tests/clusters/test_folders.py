"""A folder for each cluster: links or copies of every photograph, under names that stay where they belong."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters import folders
from runtime.clusters.clusters import Clusters, number_clusters
from runtime.clusters.folders import FolderCounts, write_folders
from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.storage.derived import recorded_pages
from runtime.storage.file import EmbeddingFile
from tests.support.clustered_files import EVIL, people_rows, write_file, write_photos
from tests.support.errors import raises

NAMES = sorted(
    [b"a/face.jpg", b"b/face.jpg", b"c/face.jpg", b"d/" + EVIL, b"e/" + EVIL, b"f/one.jpg", b"f/gone.jpg", b"g/two.jpg"]
)
LABELS = [0, 0, 0, 1, 1, 2, 2, 3]  # a, b, c; d, e; both of f; g


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_file(tmp_path_factory.mktemp("folders") / "people.h5", people_rows([8]), NAMES)
    write_photos(path, [name for name in NAMES if name != b"f/gone.jpg"])
    return path


def clusters(labels: Sequence[int] = LABELS) -> Clusters:
    return number_clusters(np.array(labels), np.ones(len(labels), np.float32), method="whispers", threshold=0.5)


def entries(path: Path) -> dict[str, list[bytes]]:
    return {
        found: sorted(os.listdir(os.path.join(os.fsencode(path), os.fsencode(found))))
        for found in sorted(os.listdir(path))
        if found.startswith("cluster")
    }


@pytest.mark.parametrize("mode", folders.MODES)
def test_every_photograph_of_a_cluster_is_in_its_folder(file: Path, tmp_path: Path, mode: str) -> None:
    target = tmp_path / "d"
    if mode == "hardlink":
        target = file.parent / "hard"  # on the same file system for sure
    with EmbeddingFile(file) as gallery:
        made = write_folders(target, gallery, clusters(), mode=mode)
        photographs = gallery.photo_paths(range(8))
    assert made == FolderCounts(folders=3, photos=6, missing=1)
    stem = EVIL.removesuffix(b".jpg")
    assert entries(target) == {
        "cluster-00001": [b"face-2.jpg", b"face-3.jpg", b"face.jpg"],
        "cluster-00002": sorted([EVIL, stem + b"-2.jpg"]),
        "cluster-00003": [b"one.jpg"],
    }
    first = os.path.join(os.fsencode(target), b"cluster-00002", EVIL)
    with open(first, "rb") as one, open(photographs[3], "rb") as other:
        assert one.read() == other.read()
    assert os.path.islink(first) == (mode == "symlink")
    assert os.path.samefile(first, photographs[3]) == (mode != "copy")
    assert recorded_pages(file)[-1] == target


def test_least_leaves_small_clusters_out_and_1_takes_all(file: Path, tmp_path: Path) -> None:
    with EmbeddingFile(file) as gallery:
        assert write_folders(tmp_path / "3", gallery, clusters(), mode="symlink", min_rows=3).folders == 1
        assert write_folders(tmp_path / "1", gallery, clusters(), mode="symlink", min_rows=1).folders == 4
        assert write_folders(tmp_path / "9", gallery, clusters(), mode="symlink", min_rows=9) == FolderCounts(0, 0, 0)
        # rows of none, number 0, are in no folder
        assert (
            write_folders(tmp_path / "0", gallery, clusters([0, 0, *[-1] * 6]), mode="symlink", min_rows=1).photos == 2
        )


def test_a_second_time_needs_force_and_leaves_nothing_of_the_first(file: Path, tmp_path: Path) -> None:
    with EmbeddingFile(file) as gallery:
        write_folders(tmp_path / "d", gallery, clusters(), mode="symlink")
        with raises(OutputExistsError, "--force"):
            write_folders(tmp_path / "d", gallery, clusters([0] * 8), mode="symlink")
        write_folders(tmp_path / "d", gallery, clusters([0] * 8), mode="copy", force=True)
    assert list(entries(tmp_path / "d")) == ["cluster-00001"]
    assert len(entries(tmp_path / "d")["cluster-00001"]) == 7


def test_paths_that_would_lead_out_of_the_root_are_refused(tmp_path: Path) -> None:
    for name in (b"../../outside.jpg", b"a/..", b"/etc/passwd"):
        path = write_file(tmp_path / "people.h5", people_rows([2]), [b"a.jpg", name])
        with EmbeddingFile(path) as gallery, raises(StorageError, repr(name)):
            write_folders(tmp_path / "d", gallery, clusters([0, 0]), mode="copy")
        assert not list((tmp_path / "d").glob("*/*"))


def test_paths_that_name_no_file_are_left_out(tmp_path: Path) -> None:
    """Such names are in no file of facemill's; one that somebody sends may hold anything."""
    names = [b"x/outside.jpg", b"a/.", b"sub/", b"x/\x7fy.jpg"]
    place = tmp_path / "in" / "deep"
    place.mkdir(parents=True)
    path = write_file(place / "people.h5", people_rows([4]), names)
    write_photos(path, [b"x/\x7fy.jpg", b"sub/z.jpg"])
    before = set(tmp_path.rglob("*"))
    with EmbeddingFile(path) as gallery:
        made = write_folders(place / "d", gallery, clusters([0] * 4), mode="copy")
    assert made == FolderCounts(folders=1, photos=1, missing=2, refused=1)
    assert entries(place / "d") == {"cluster-00001": [b"\x7fy.jpg"]}
    outside = {found for found in set(tmp_path.rglob("*")) - before if not found.is_relative_to(place / "d")}
    assert outside == {path.with_name("people.h5.pages")}


@pytest.mark.parametrize("name", [b"", b".", b".."])
def test_a_name_that_is_none_becomes_the_row(name: bytes) -> None:
    assert folders._safe_name(name, 17) == b"row-17"
    assert folders._safe_name(b"-rf.jpg", 17) == b"-rf.jpg"


def test_a_name_as_long_as_a_file_system_takes_gets_its_number_too(tmp_path: Path) -> None:
    made: list[bytes] = []

    def place(photo: bytes, target: bytes) -> folders._Placed:
        name = os.path.basename(target)
        assert len(name) <= 255
        if name in made:
            raise FileExistsError
        made.append(name)
        return folders._Placed.WRITTEN

    for name in (b"n" * 251 + b".jpg", b"n" + b"." + b"s" * 253):
        for _ in range(12):
            folders._place_unique(place, b"photograph", b"folder", name)
    assert len(set(made)) == 24
    assert made[1] == b"n" * 249 + b"-2.jpg"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_where_no_hard_link_can_be_made_copy_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with EmbeddingFile(file) as gallery, raises(ConfigError, "--mode copy", "--mode symlink"):
        write_folders(tmp_path / "d", gallery, clusters(), mode="hardlink")
    with EmbeddingFile(file) as gallery:  # what was left half made is no obstacle
        assert write_folders(tmp_path / "d", gallery, clusters(), mode="copy").folders == 3


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm, which is another file system")
def test_a_real_second_file_system(file: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as other, EmbeddingFile(file) as gallery:
        if os.stat(other).st_dev == os.stat(file).st_dev:
            pytest.skip("/dev/shm is the file system of the photographs")
        with raises(ConfigError, "--mode copy"):
            write_folders(Path(other) / "d", gallery, clusters(), mode="hardlink")
