"""Write HDF5 files atomically; a full disk is an error before HDF5 sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import LockedError
from runtime.storage.h5write import durable_h5

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with durable_h5(path, "the file") as target:
        target.file["x"] = np.arange(100_000)
        assert not path.exists()
    with h5py.File(path) as file:
        assert file["x"][-1] == 99_999
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_appears_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")

    def write_and_fail() -> None:
        with durable_h5(path, "the file") as target:
            target.file["x"] = np.arange(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK_CODE = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import h5py, numpy as np
from runtime.errors import DiskFullError
from runtime.storage.h5write import durable_h5
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
path = Path({path!r})
try:
    with durable_h5(path, "the file") as target:
        data = target.file.create_dataset("x", shape=(0, 128), maxshape=(None, 128), chunks=(256, 128), fletcher32=True)
        for _ in range(200):
            data.resize(data.shape[0] + 256, axis=0)
            data[-256:] = np.random.default_rng(0).random((256, 128))
except DiskFullError as err:
    print(err)
print("files:", [p.name for p in path.parent.iterdir()])
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 100, 4096, 100_000, 1_000_001, 20_000_000])
def test_a_full_disk_is_one_clear_error_and_no_crash(limit: int, tmp_path: Path) -> None:
    code = FULL_DISK_CODE.format(root=str(ROOT), limit=limit, path=str(tmp_path / "a.h5"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "E-DISK-FULL: " in result.stdout
    assert "files: []" in result.stdout


def test_a_link_at_the_path_of_the_partial_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "a.h5.partial").symlink_to(tmp_path / "precious")
    with durable_h5(tmp_path / "a.h5", "the file") as target:
        target.file["x"] = np.arange(10)
    assert not (tmp_path / "a.h5").is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_second_writer_is_refused_and_the_first_succeeds(tmp_path: Path) -> None:
    with durable_h5(tmp_path / "a.h5", "the file") as target:
        target.file["x"] = np.arange(10)
        with pytest.raises(LockedError):
            durable_h5(tmp_path / "a.h5", "the file").__enter__()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][-1] == 9


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_is_as_private_as_its_source(tmp_path: Path, mode: int) -> None:
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(mode)
    with durable_h5(tmp_path / "a.h5", "the file", like=tmp_path / "source") as target:
        target.file["x"] = np.arange(10)
        assert (tmp_path / "a.h5.partial").stat().st_mode & 0o077 & ~mode == 0
    assert (tmp_path / "a.h5").stat().st_mode & 0o077 & ~mode == 0
