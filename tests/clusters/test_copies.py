"""Copies and hard links of photos that another user may have replaced since they were embedded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import FolderCounts, write_folders
from runtime.sources.reader import ReadError, open_below
from runtime.storage.file import EmbeddingFile
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.errors import raises

NAMES = [b"a/1.jpg", b"a/2.jpg", b"b/3.jpg"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    path = write_file(tmp_path / "photos" / "people.h5", people_rows([3]), NAMES)
    write_photos(path, NAMES)
    return path


def photo(file: Path, number: int) -> Path:
    with EmbeddingFile(file) as embeddings:
        return Path(os.fsdecode(embeddings.photo_paths([number])[0]))


def export_photo(file: Path, folder: Path, mode: str) -> FolderCounts:
    clusters = number_clusters(np.zeros(3, int), np.ones(3, np.float32), method="whispers", threshold=0.5)
    with EmbeddingFile(file) as embeddings:
        return write_folders(folder, embeddings, clusters, mode=mode)


@pytest.mark.parametrize("mode_bits", [0o4755, 0o2755, 0o6777, 0o1777])
def test_a_copy_has_the_content_and_the_time_of_a_photo_and_nothing_else(
    file: Path, tmp_path: Path, mode_bits: int
) -> None:
    original = photo(file, 0)
    if os.geteuid() == 0:
        os.chown(original, 12345, 12345)
    original.chmod(mode_bits)
    os.utime(original, (1e9, 1e9))
    assert export_photo(file, tmp_path / "out", "copy") == FolderCounts(folders=1, photos=3, missing=0)
    copy = tmp_path / "out" / "cluster-00001" / "1.jpg"
    assert copy.read_bytes() == original.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == stat.S_IMODE(file.stat().st_mode)
    assert (copy.stat().st_uid, copy.stat().st_gid) == (file.stat().st_uid, file.stat().st_gid)
    assert copy.stat().st_mtime == 1e9


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "hardlink"])
@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "text"])
def test_a_file_that_replaced_a_photo_is_not_exported(file: Path, tmp_path: Path, kind: str, mode: str) -> None:
    original = photo(file, 0)
    secret = tmp_path / "elsewhere" / "1.jpg"
    secret.parent.mkdir()
    secret.write_bytes(original.read_bytes())
    expected = FolderCounts(folders=1, photos=2, missing=0, refused=1)
    if kind == "link to a folder":
        original.parent.rename(tmp_path / "old")
        original.parent.symlink_to(secret.parent)
        expected = FolderCounts(folders=1, photos=1, missing=1, refused=1)  # a/2.jpg is missing in this folder
    else:
        original.unlink()
        if kind == "link":
            original.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(original)
        else:
            original.write_text("root:$6$salt$hash\n")
    assert export_photo(file, file.parent / "out", mode) == expected
    assert not (file.parent / "out" / "cluster-00001" / "1.jpg").exists()
    assert secret.stat().st_nlink == 1


def test_a_name_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "1.jpg").write_bytes(b"photo")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "way").symlink_to(tmp_path / "root")
    root, open_before = os.fsencode(tmp_path / "root"), os.listdir("/proc/self/fd")
    for start in (root, os.fsencode(tmp_path / "way")):
        fd = open_below(start, b"a/1.jpg")
        assert os.read(fd, 9) == b"photo"
        os.close(fd)
    for name in (b"../secret", b"a/../../secret", os.fsencode(tmp_path / "secret"), b"a/1.jpg\0", b"link/secret"):
        with raises(ReadError):
            open_below(root, name)
    for name in (b"a", b"a/none", b"none/1.jpg", b"a/1.jpg/x"):
        with raises(ReadError):
            open_below(root, name)
    assert os.listdir("/proc/self/fd") == open_before  # no file descriptor stays open
