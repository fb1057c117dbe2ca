"""Edit one part of a finished file: after any failure, the file is the old one or the new one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import LockedError, StorageError
from runtime.storage.contract import EmbeddingContract
from runtime.storage.dataset import edit_file
from runtime.storage.runfolder import RunFolder, StoredPlan
from runtime.storage.verify import verify_file
from tests.support.embedding_files import differences
from tests.support.errors import raises
from tests.support.export_files import write_file
from tests.support.facemill_command import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path, _, _ = write_file(tmp_path / "made.h5", count=40, faces=True, dtype="float16")
    (tmp_path / "place").mkdir()
    return path.rename(tmp_path / "place" / "people.h5")


def add_cluster(file: Path, value: int = 7) -> None:
    with edit_file(file) as copy:
        copy["cluster"] = np.full(40, value, np.int32)
        copy["cluster"].attrs["clusters"] = value


def test_an_edit_changes_one_dataset_and_no_other(file: Path) -> None:
    with h5py.File(file, "r+") as old:
        old.attrs["theirs"] = "a note of somebody"
    before = file.with_name("before.h5")
    before.write_bytes(file.read_bytes())
    add_cluster(file)
    with h5py.File(file, "r+") as new, h5py.File(before) as old:
        assert new["cluster"][:].tolist() == [7] * 40
        after, earlier = dict(new["metadata"].attrs), dict(old["metadata"].attrs)
        assert after.pop("content_sha256") != earlier.pop("content_sha256")
        assert after == earlier  # the run_id too
        assert new.attrs["theirs"] == "a note of somebody"
        for name in ("embeddings", "image_paths", "faces/box", "outcomes/path", "outcomes/raw_paths/bytes"):
            for attribute in ("dtype", "shape", "maxshape", "chunks", "compression", "fletcher32"):
                assert getattr(new[name], attribute) == getattr(old[name], attribute), (name, attribute)
        del new["cluster"]
    assert differences(file, before) == []
    assert sorted(os.listdir(file.parent)) == ["before.h5", "people.h5"]


@pytest.mark.slow
def test_an_edit_adds_no_finding(file: Path) -> None:
    before = verify_file(file).findings  # not empty: the file lacks some metadata of a run
    add_cluster(file)
    assert verify_file(file).findings == before


def test_the_old_file_stays_until_the_block_ends(file: Path) -> None:
    before = file.read_bytes()
    with edit_file(file) as copy:
        copy["cluster"] = np.zeros(40)
        copy.flush()
        assert file.read_bytes() == before
    assert file.read_bytes() != before


def test_a_block_that_fails_changes_nothing(file: Path) -> None:
    before = file.read_bytes()

    def fail() -> None:
        with edit_file(file) as copy:
            del copy["embeddings"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["people.h5"]


KILL_CODE = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
import runtime.files as files
from runtime.storage.dataset import edit_file
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
moment = {moment!r}
if moment == "before the rename":
    files.os.replace = die
if moment == "after the rename":
    replace = files.os.replace
    files.os.replace = lambda *names: (replace(*names), die())
with edit_file(Path({path!r})) as copy:
    if moment == "before the change":
        die()
    copy["cluster"] = np.arange(40)
    if moment == "after the change":
        copy.flush()
        die()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "changed"),
    [
        ("before the change", False),
        ("after the change", False),
        ("before the rename", False),
        ("after the rename", True),
    ],
)
def test_kill_9_leaves_the_old_file_or_the_new_one(file: Path, moment: str, changed: bool) -> None:
    before = file.read_bytes()
    code = KILL_CODE.format(root=str(ROOT), path=str(file), moment=moment)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr
    if changed:
        with h5py.File(file) as new:
            assert new["cluster"][:].tolist() == list(range(40))
            assert len(new["embeddings"][:]) == 40
    else:
        assert file.read_bytes() == before
        add_cluster(file, 8)  # the partial copy does not block the next edit
        with h5py.File(file) as new:
            assert new["cluster"][0] == 8
        assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_is_kept_and_the_copy_is_never_more_open(file: Path, mode: int) -> None:
    file.chmod(mode)
    with edit_file(file) as copy:
        copy["cluster"] = np.zeros(40)
        partial = file.with_name("people.h5.partial")
        assert stat.S_IMODE(partial.stat().st_mode) == mode
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_a_link_is_followed_and_stays(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    add_cluster(link)
    assert link.is_symlink()
    with h5py.File(file) as new:
        assert "cluster" in new


def test_a_file_locked_by_a_run_is_refused(file: Path) -> None:
    before = file.read_bytes()
    with RunFolder(file), raises(LockedError, file), edit_file(file):
        pass
    assert file.read_bytes() == before


def test_an_unfinished_run_on_the_file_is_kept(file: Path) -> None:
    with RunFolder(file) as folder:
        folder.write_plan(StoredPlan(EmbeddingContract(), "/photos", 40, "2026-01-01"))
    add_cluster(file)
    with RunFolder(file) as folder:
        assert folder.read_plan() is not None


def test_a_damaged_or_missing_file_is_refused(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    for content in (b"no HDF5", data[: len(data) // 2]):
        file.write_bytes(content)
        with raises(StorageError, file), edit_file(file):
            pass
        assert file.read_bytes() == content
    for missing in (tmp_path / "none.h5", tmp_path / "no" / "folder" / "none.h5", tmp_path):
        with raises(StorageError, missing), edit_file(missing):
            pass
    assert not (tmp_path / "no").exists()
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_a_damaged_file_is_not_edited(file: Path) -> None:
    with h5py.File(file) as source:
        offset = source["embeddings"].id.get_chunk_info(0).byte_offset
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    with raises(StorageError, "repair"):
        add_cluster(file)
    assert file.read_bytes() == data
    assert any(finding.startswith("vectors: cannot be read") for finding in verify_file(file).findings)
