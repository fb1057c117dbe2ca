"""Opening files that are in use, that may not be read, that have no locks, or whose text makes HDF5 go round."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import LockedError, StorageError
from runtime.maintenance.repair import repair
from runtime.storage.child import run_in_child
from runtime.storage.dataset import edit_file
from runtime.storage.file import EmbeddingFile
from runtime.storage.heaps import check_attribute_texts, check_list_texts
from runtime.storage.verify import verify_file
from tests.support import encoded_images as make
from tests.support.errors import assert_refused, raises
from tests.support.facemill_command import facemill, facemill_process

HOLDER = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('held', flush=True); sys.stdin.read()"
NO_LOCKS = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int how) { (void)fd; (void)how; errno = atoi(getenv("LOCK_ERRNO")); return -1; }
"""


@pytest.fixture(scope="module")
def whole(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding file of three photos; the name of one is not UTF-8."""
    folder = tmp_path_factory.mktemp("opening")
    (folder / "photos").mkdir()
    for number, name in enumerate((b"a.jpg", b"c\xfe.jpg", b"d.jpg")):
        photo = os.path.join(os.fsencode(folder / "photos"), name)
        with open(photo, "wb") as file:
            file.write(make.encode(make.scene(112, 112, seed=number), quality=80))
    done = facemill("process", folder / "photos", "-o", folder / "people.h5", "--engine", tiny_engine)
    assert done.returncode == 0, done.stderr
    return folder / "people.h5"


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "people.h5"))


@pytest.mark.slow
def test_a_file_that_another_program_writes_is_in_use_and_not_damaged(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for read in (EmbeddingFile, verify_file, repair):
            with raises(LockedError, path, "in use by another program"):
                read(path)
        for arguments in (
            ["search", path, path],
            ["merge", path, path.with_name("other.h5"), "-o", tmp_path / "m.h5"],
            ["process", path.parent, "-o", path],
            ["remove", path, "--path", "a.jpg", "--yes"],
        ):
            if arguments[0] == "process":
                (path.parent / "a.jpg").write_bytes(b"no photo")
            done = facemill(*arguments)
            if arguments[0] != "merge":  # the other file does not exist, which it may say first
                assert_refused(done, "E-LOCKED", path, "in use by another program")
            assert "--force" not in done.stderr
            assert "damaged" not in done.stderr
        holder.communicate()
    assert verify_file(path).embeddings == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(path: Path) -> None:
    path.chmod(0)
    for read in (EmbeddingFile, verify_file):
        with raises(StorageError, path, "permission denied"):
            read(path)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_without_locks_reading_goes_on_and_writing_says_so(number: str, path: Path, tmp_path: Path) -> None:
    import errno

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the library without locks is C")
    (tmp_path / "shim.c").write_text(NO_LOCKS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "shim.so"), "LOCK_ERRNO": str(getattr(errno, number))}
    done = facemill_process("verify", path, env=environment)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "whole"), done.stdout + done.stderr
    twice = "import sys; from runtime.storage.file import EmbeddingFile as F; F(sys.argv[1]).rows + F(sys.argv[1]).rows"
    subprocess.run([sys.executable, "-c", twice, path], env=environment, check=True, cwd=Path(__file__).parents[2])
    refused = facemill_process("remove", path, "--path", "a.jpg", "--yes", env=environment)
    assert_refused(refused, "E-STORAGE", f"{path}.parts", "keeps no locks", os.strerror(getattr(errno, number)))
    assert "local disk" in refused.stderr
    assert verify_file(path).embeddings == 3


@pytest.mark.slow
def test_a_file_without_a_lock_may_be_open_twice(path: Path) -> None:
    with h5py.File(path, "r", locking=False), EmbeddingFile(path) as file:
        assert file.rows == 3


def heap_of(path: Path) -> int:
    """The first byte of the text of attributes."""
    return path.read_bytes().index(b"GCOL")


def zeroed(path: Path, start: int, count: int) -> Path:
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("start", "count"), [(16, 16), (16, 512), (0, 4), (8, 8), (40, 437)])
def test_text_in_which_hdf5_goes_round_is_refused_at_once(path: Path, start: int, count: int) -> None:
    zeroed(path, heap_of(path) + start, count)
    for read in (EmbeddingFile, verify_file, repair):
        with raises(StorageError, path, "damaged"):
            read(path)
    with raises(StorageError, path), edit_file(path):
        pass


@pytest.mark.slow
def test_a_child_that_never_ends_is_ended_and_says_so(path: Path) -> None:
    zeroed(path, heap_of(path) + 16, 512)
    with raises(ValueError, "would never end"):
        run_in_child("attributes", path)


@pytest.mark.slow
def test_a_file_written_in_the_newer_way_of_hdf5_is_read(path: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.h5"
    with h5py.File(path) as old, h5py.File(newer, "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
        assert not check_attribute_texts(new["metadata"])
    with EmbeddingFile(newer) as file:
        assert file.paths == ["a.jpg", "c\\xfe.jpg", "d.jpg"]
    assert verify_file(newer).findings == ()


def test_texts_of_whole_files_are_followed_to_their_end(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["long"] = "x" * 30_000
        for number in range(40):
            file["metadata"].attrs[f"text {number}"] = "y" * number
    with h5py.File(path) as file:
        assert check_attribute_texts(file)
        assert check_attribute_texts(file["metadata"])
        check_list_texts(file["outcomes/raw_paths/bytes"])
        assert len(np.unique(file["outcomes/raw_paths/row"])) == 1


@pytest.mark.slow
def test_exact_paths_whose_bytes_are_damaged_are_a_finding(path: Path) -> None:
    with h5py.File(path) as file:
        place = file["outcomes/raw_paths/bytes"].id.get_offset()
    with path.open("r+b") as disk:
        disk.seek(place + 4)
        disk.write((64).to_bytes(8, "little"))  # no text is there
    found = verify_file(path).findings
    assert any(finding.startswith("exact: cannot be read") for finding in found), found
    with EmbeddingFile(path) as file, raises(StorageError, path):
        file.photo_path(1)
