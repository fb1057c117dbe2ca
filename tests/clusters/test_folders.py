"""A folder for each cluster: links or copies of every photo, under names that stay inside the folder."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters.clusters import Clusters, number_clusters
from runtime.clusters.folders import FolderCounts, numbered_names, safe_name, write_folders
from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.receipts.placing import MODES
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
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
        name: sorted(os.listdir(os.path.join(os.fsencode(path), os.fsencode(name))))
        for name in sorted(os.listdir(path))
        if name.startswith("cluster")
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_photo_of_a_cluster_is_in_its_folder(file: Path, tmp_path: Path, mode: str) -> None:
    target = tmp_path / "d"
    if mode == "hardlink":
        target = file.parent / "hard"  # certainly on the same file system
    with EmbeddingFile(file) as gallery:
        count = write_folders(target, gallery, clusters(), mode=mode)
        photos = gallery.photo_paths(range(8))
    assert count == FolderCounts(folders=3, photos=6, missing=1)
    stem = EVIL.removesuffix(b".jpg")
    assert entries(target) == {
        "cluster-00001": [b"face-2.jpg", b"face-3.jpg", b"face.jpg"],
        "cluster-00002": sorted([EVIL, stem + b"-2.jpg"]),
        "cluster-00003": [b"one.jpg"],
    }
    first = os.path.join(os.fsencode(target), b"cluster-00002", EVIL)
    with open(first, "rb") as photo_a, open(photos[3], "rb") as photo_b:
        assert photo_a.read() == photo_b.read()
    assert os.path.islink(first) == (mode == "symlink")
    assert os.path.samefile(first, photos[3]) == (mode != "copy")
    assert read_list(file).pages()[-1] == target


def test_least_skips_small_clusters_and_1_exports_all(file: Path, tmp_path: Path) -> None:
    with EmbeddingFile(file) as gallery:
        assert write_folders(tmp_path / "3", gallery, clusters(), mode="symlink", min_rows=3).folders == 1
        assert write_folders(tmp_path / "1", gallery, clusters(), mode="symlink", min_rows=1).folders == 4
        assert write_folders(tmp_path / "9", gallery, clusters(), mode="symlink", min_rows=9) == FolderCounts(0, 0, 0)
        # rows without a cluster (number 0) are in no folder
        assert (
            write_folders(tmp_path / "0", gallery, clusters([0, 0, *[-1] * 6]), mode="symlink", min_rows=1).photos == 2
        )


def test_a_second_export_needs_force_and_removes_the_first(file: Path, tmp_path: Path) -> None:
    with EmbeddingFile(file) as gallery:
        write_folders(tmp_path / "d", gallery, clusters(), mode="symlink")
        with raises(OutputExistsError, "--force"):
            write_folders(tmp_path / "d", gallery, clusters([0] * 8), mode="symlink")
        write_folders(tmp_path / "d", gallery, clusters([0] * 8), mode="copy", force=True)
    assert list(entries(tmp_path / "d")) == ["cluster-00001"]
    assert len(entries(tmp_path / "d")["cluster-00001"]) == 7


def test_paths_outside_the_root_are_refused(tmp_path: Path) -> None:
    for name in (b"../../outside.jpg", b"a/..", b"/etc/passwd"):
        path = write_file(tmp_path / "people.h5", people_rows([2]), [b"a.jpg", name])
        with EmbeddingFile(path) as gallery, raises(StorageError, repr(name)):
            write_folders(tmp_path / "d", gallery, clusters([0, 0]), mode="copy")
        assert not list((tmp_path / "d").glob("*/*"))


def test_paths_that_name_no_file_are_skipped(tmp_path: Path) -> None:
    """facemill never writes such names, but a file from someone else may contain anything."""
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
def test_an_unusable_name_becomes_the_row_number(name: bytes) -> None:
    assert safe_name(name, 17) == b"row-17"
    assert safe_name(b"-rf.jpg", 17) == b"-rf.jpg"


def test_a_name_of_maximum_length_still_gets_its_number() -> None:
    for name in (b"n" * 251 + b".jpg", b"n" + b"." + b"s" * 253):
        names = list(itertools.islice(numbered_names(name), 12))
        assert len(set(names)) == 12
        assert max(map(len, names)) == 255
        assert names[1].startswith(b"n")
    assert list(itertools.islice(numbered_names(b"n" * 251 + b".jpg"), 2))[1] == b"n" * 249 + b"-2.jpg"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_where_hard_links_fail_the_error_suggests_copy(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with EmbeddingFile(file) as gallery, raises(ConfigError, "--mode copy", "--mode symlink"):
        write_folders(tmp_path / "d", gallery, clusters(), mode="hardlink")
    with EmbeddingFile(file) as gallery:  # a half-written folder is no obstacle
        assert write_folders(tmp_path / "d", gallery, clusters(), mode="copy").folders == 3


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm, which is another file system")
def test_a_real_second_file_system(file: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as second_fs, EmbeddingFile(file) as gallery:
        if os.stat(second_fs).st_dev == os.stat(file).st_dev:
            pytest.skip("/dev/shm is the file system of the photographs")
        with raises(ConfigError, "--mode copy"):
            write_folders(Path(second_fs) / "d", gallery, clusters(), mode="hardlink")
