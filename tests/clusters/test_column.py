"""`/cluster` in the file is written completely or not at all, and nothing else changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.clusters.clusters import Clusters, number_clusters
from runtime.clusters.outputs import write_column
from runtime.errors import LockedError, StorageError
from runtime.index.indexfile import ensure_index
from runtime.storage.file import EmbeddingFile
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.support.clustered_files import people_rows, write_file
from tests.support.embedding_files import contents
from tests.support.errors import raises
from tests.support.facemill_command import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows([3, 2, 1]))


def clusters(labels: list[int], **how: float) -> Clusters:
    scores = np.ones(len(labels), np.float32)
    return number_clusters(np.array(labels), scores, method="k-means" if "k" in how else "whispers", seed=3, **how)  # type: ignore[arg-type]


def run_id(file: Path) -> str:
    with h5py.File(file) as opened:
        return str(opened["metadata"].attrs["run_id"])


@pytest.mark.slow
def test_the_column_is_written_with_its_settings_and_replaces_the_previous_one(file: Path) -> None:
    before, whose = contents(file), run_id(file)
    write_column(file, clusters([5, 5, 5, 2, 2, 9], threshold=0.45), whose)
    with h5py.File(file) as opened:
        column = opened["cluster"]
        assert column[:].tolist() == [1, 1, 1, 2, 2, 3]
        assert (column.dtype, column.fletcher32) == (np.int32, True)
        facts = dict(column.attrs)
        assert {key: facts[key] for key in ("method", "threshold", "seed", "clusters")} == {
            "method": "whispers",
            "threshold": 0.45,
            "seed": 3,
            "clusters": 3,
        }
        assert str(facts["made_utc"]).endswith("+00:00")
        assert facts["tool_version"]
    assert verify_file(file).findings == ()
    write_column(file, clusters([0, 1, 0, 1, 0, -1], k=2), whose)
    with h5py.File(file) as opened:
        assert opened["cluster"][:].tolist() == [1, 2, 1, 2, 1, 0]
        assert opened["cluster"].attrs["k"] == 2
        assert "threshold" not in opened["cluster"].attrs
    after = contents(file)
    assert before.items() <= after.items()
    assert {key for key in after if key not in before} <= {key for key in after if "cluster" in key}
    assert run_id(file) == whose
    assert verify_file(file).findings == ()


def test_an_empty_file_gets_an_empty_column(tmp_path: Path) -> None:
    path = write_file(tmp_path / "none.h5", np.empty((0, 4), np.float32))
    write_column(path, clusters([], threshold=0.5), run_id(path))
    with h5py.File(path) as opened:
        assert opened["cluster"].shape == (0,)


def test_a_file_that_has_changed_since_is_left_untouched(file: Path) -> None:
    data = file.read_bytes()
    with raises(StorageError, file):
        write_column(file, clusters([1] * 6, threshold=0.5), "another")
    with raises(StorageError, file):
        write_column(file, clusters([1] * 5, threshold=0.5), run_id(file))
    assert file.read_bytes() == data
    with RunFolder(file), pytest.raises(LockedError):
        write_column(file, clusters([1] * 6, threshold=0.5), run_id(file))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_kill_9_during_the_write_leaves_the_old_file(file: Path, moment: str) -> None:
    data = file.read_bytes()
    places = {"write": "DiskFile.write", "fsync": "os.fsync", "replace": "os.replace"}
    code = (
        "import os, signal\nimport numpy as np\nfrom pathlib import Path\n"
        "from runtime.storage.h5write import DiskFile\n"
        "from runtime.clusters.clusters import number_clusters\nfrom runtime.clusters.outputs import write_column\n"
        "found = number_clusters(np.ones(6, np.int64), np.ones(6, np.float32), method='whispers', threshold=0.5)\n"
        f"{places[moment]} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_column(Path({str(file)!r}), found, {run_id(file)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert file.read_bytes() == data
    write_column(file, clusters([1] * 6, threshold=0.5), run_id(file))  # and the next write succeeds
    with h5py.File(file) as opened:
        assert opened["cluster"][:].tolist() == [1] * 6
    assert sorted(os.listdir(file.parent)) == ["people.h5"]


def test_the_index_next_to_the_file_remains(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        index = ensure_index(gallery)
    assert index is not None
    before = index.stat()
    write_column(file, clusters([5, 5, 5, 2, 2, 9], threshold=0.45), run_id(file))
    with EmbeddingFile(file) as gallery:
        ensure_index(gallery)
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
