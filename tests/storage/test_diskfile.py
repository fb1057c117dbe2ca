"""Files that appear whole or not at all, and a full disk that HDF5 never meets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.storage.diskfile import durable_file, durable_h5, write_durable

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with durable_h5(path, "the file") as target:
        target.file["x"] = np.arange(100_000)
        assert not path.exists()
    with h5py.File(path) as file:
        assert file["x"][-1] == 99_999
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_when_the_block_fails(tmp_path: Path) -> None:
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


FULL = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import h5py, numpy as np
from runtime.errors import DiskFullError
from runtime.storage.diskfile import durable_h5
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
    print("full:", err)
print("files:", [p.name for p in path.parent.iterdir()])
"""


@pytest.mark.parametrize("limit", [0, 100, 4096, 100_000, 1_000_001, 20_000_000])
def test_a_full_disk_is_one_clear_error_and_no_crash(limit: int, tmp_path: Path) -> None:
    code = FULL.format(root=str(ROOT), limit=limit, path=str(tmp_path / "a.h5"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "full: no room left while writing the file" in done.stdout
    assert "run the same command again" in done.stdout
    assert "files: []" in done.stdout


def test_write_durable_replaces_and_leaves_no_partial(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_durable(path, b"1", "the plan")
    write_durable(path, b"2", "the plan")
    assert path.read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StorageError, match="cannot be written"):
        write_durable(tmp_path / "gone" / "plan.json", b"1", "the plan")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyboardInterrupt("ours"), KeyboardInterrupt, "^ours$"),
        (ValueError("ours"), ValueError, "^ours$"),
        (StorageError("ours"), StorageError, "^ours$"),
        (OSError(28, "full"), StorageError, "no room left while writing it"),
    ],
)
def test_a_file_written_in_pieces_is_whole_or_not_there(
    tmp_path: Path, error: BaseException, kind: type[BaseException], words: str
) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(b"old")

    def write(failure: BaseException | None) -> None:
        with durable_file(path, "it") as file:
            file.write(b"new")
            if failure is not None:
                raise failure

    with pytest.raises(kind, match=words):
        write(error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(None)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link_in_the_place_of_the_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    for name, write in (
        ("a.h5", lambda path: durable_h5(path, "the file").__enter__()),
        ("a.html", lambda path: write_durable(path, b"new", "the page")),
    ):
        (tmp_path / f"{name}.partial").symlink_to(tmp_path / "precious")
        with pytest.raises(StorageError, match="cannot be written"):
            write(tmp_path / name)
        assert not (tmp_path / name).exists()
    assert (tmp_path / "precious").read_bytes() == b"mine"
