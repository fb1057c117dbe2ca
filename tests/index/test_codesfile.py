"""The file of an approximate index is written completely or not at all, and is rebuilt only when it is wrong."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import StorageError
from runtime.index import codesfile
from runtime.index.approximate import ApproximateIndex
from runtime.index.codesfile import codes_path
from runtime.index.sidecar import sidecar_path
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import oracle, write_gallery
from tests.support.errors import assert_names, raises

ROOT = Path(__file__).resolve().parents[2]


def answer(path: Path, kind: str = "sq8", k: int = 5) -> NDArray[np.int64]:
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, kind, k) as index:
        return index.search(crowd(4, seed=30), k)[0]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = write_gallery(tmp_path / "people.h5", crowd(400))
    np.testing.assert_array_equal(answer(path), oracle(crowd(400), crowd(4, seed=30), 5))
    return path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change(path: Path, **facts: object) -> None:
    card = sidecar_path(path)
    card.write_text(json.dumps({**json.loads(card.read_text()), **facts}))


DAMAGES = {
    "flipped bit": flip,
    "cut short": lambda index: index.write_bytes(index.read_bytes()[:1000]),
    "empty": lambda index: index.write_bytes(b""),
    "gone": lambda index: index.unlink(),
    "something else": lambda index: index.write_bytes(os.urandom(5000)),
    "no sidecar": lambda index: sidecar_path(index).unlink(),
    "sidecar cut short": lambda index: sidecar_path(index).write_text(sidecar_path(index).read_text()[:50]),
    "sidecar of another kind": lambda index: sidecar_path(index).write_text("[1]"),
    "sidecar not text": lambda index: sidecar_path(index).write_bytes(b"\xff\xfe\x00"),
    "of another file": lambda index: change(index, source={"run_id": "x", "size_bytes": 1, "mtime_ns": 1}),
    "of another kind": lambda index: change(index, kind="pq"),
    "of another recipe": lambda index: change(index, recipe=0),
    "parameters not numbers": lambda index: change(index, parameters={"dimensions": "many"}),
    "parameters no table": lambda index: change(index, parameters=[1]),
    "nothing measured well": lambda index: change(index, measured=[{"k": 5}]),
    "recall beyond 1": lambda index: change(index, measured=[bad(recall=1.5)]),
    "recall not a number": lambda index: change(index, measured=[bad(recall=float("nan"))]),
    "fewer candidates than hits": lambda index: change(index, measured=[bad(candidates=49)]),
}


def bad(**facts: float) -> dict[str, float]:
    good = {"k": 50, "recall": 1.0, "sample": 200, "effort": 0, "candidates": 64, "latency_ms": 1.0}
    return {**good, **facts}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_index_is_rebuilt(people: Path, damage: str) -> None:
    index = codes_path(people, "sq8")
    good = index.read_bytes()
    DAMAGES[damage](index)
    np.testing.assert_array_equal(answer(people), oracle(crowd(400), crowd(4, seed=30), 5))
    assert index.read_bytes() == good
    card = json.loads(sidecar_path(index).read_text())
    assert card["sha256"] == hashlib.sha256(good).hexdigest()
    assert card["kind"] == "sq8"
    assert not list(people.parent.glob("*.partial"))


def test_an_index_is_reused_without_a_new_build_or_measurement(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("made or measured anew")

    monkeypatch.setattr(codesfile, "tune", never)
    monkeypatch.setattr(codesfile, "train", never)
    assert answer(people).shape == answer(people, k=50)[:, :5].shape
    with pytest.raises(AssertionError):
        answer(people, k=51)


def test_a_copied_index_is_checked_by_content_and_reused(people: Path, tmp_path: Path) -> None:
    copy_folder = tmp_path / "there"
    copy_folder.mkdir()
    for path in people.parent.glob("people.h5*"):
        (copy_folder / path.name).write_bytes(path.read_bytes())
        os.utime(copy_folder / path.name, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    before = codes_path(copy_folder / "people.h5", "sq8").stat().st_ino
    answer(copy_folder / "people.h5")
    assert codes_path(copy_folder / "people.h5", "sq8").stat().st_ino == before


@pytest.mark.slow
def test_a_new_run_gets_a_new_index(people: Path) -> None:
    new_rows = crowd(400, seed=31)
    write_gallery(people, new_rows, run_id="run-2")
    np.testing.assert_array_equal(answer(people), oracle(new_rows, crowd(4, seed=30), 5))


def test_damage_with_a_matching_sidecar_is_an_error(people: Path) -> None:
    index = codes_path(people, "sq8")
    data = b"none" + index.read_bytes()[4:]
    index.write_bytes(data)
    change(index, sha256=hashlib.sha256(data).hexdigest())
    with raises(StorageError, "FAISS", ".faiss"):
        answer(people)


@pytest.mark.slow
def test_files_of_a_killed_search_are_reused(people: Path) -> None:
    codes_path(people, "ivf").with_name("people.h5.faiss-ivf.partial").write_bytes(os.urandom(3_000_000))
    np.testing.assert_array_equal(answer(people, "ivf"), oracle(crowd(400), crowd(4, seed=30), 5))
    assert not list(people.parent.glob("*.partial"))


@pytest.mark.slow
def test_concurrent_searches_build_the_index_once(tmp_path: Path) -> None:
    path = write_gallery(tmp_path / "people.h5", crowd(400))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.starmap(answer, [(path, "ivf")] * 6, chunksize=1)
    for rows in answers:
        np.testing.assert_array_equal(rows, oracle(crowd(400), crowd(4, seed=30), 5))
    assert not list(tmp_path.glob("*.partial"))
    assert len(list(tmp_path.iterdir())) == 5  # the file, and two indexes with their sidecars


# The search that builds an index is killed in the middle of the write, with the file written but not synchronised,
# or under its final name without its sidecar.
MOMENTS = {
    "trained": "codesfile.tune",
    "written": "files.os.fsync",
    "named": "codesfile.write_card",
    "replacing": "files.os.replace",
}
KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from runtime import files
from runtime.index import codesfile
from runtime.index.approximate import ApproximateIndex
from runtime.index.flat import FlatIndex
from runtime.storage.file import EmbeddingFile
def kill(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
with EmbeddingFile(Path({path!r})) as gallery:
    FlatIndex(gallery)
    {place} = kill
    ApproximateIndex(gallery, "sq8", 5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_search_killed_during_the_build_leaves_no_damage(people: Path, moment: str) -> None:
    index = codes_path(people, "sq8")
    old = index.read_bytes(), sidecar_path(index).read_bytes()
    new_rows = crowd(400, seed=32)
    write_gallery(people, new_rows, run_id="run-2")
    code = KILLED.format(root=str(ROOT), path=str(people), place=MOMENTS[moment])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr
    if moment != "named":
        assert index.read_bytes() == old[0]
    assert sidecar_path(index).read_bytes() == old[1]
    np.testing.assert_array_equal(answer(people), oracle(new_rows, crowd(4, seed=30), 5))
    assert not list(people.parent.glob("*.partial"))


@pytest.mark.slow
def test_a_search_killed_during_the_measurement_leaves_no_damage(people: Path) -> None:
    index = codes_path(people, "sq8")
    old = index.read_bytes(), sidecar_path(index).read_bytes()
    code = KILLED.format(root=str(ROOT), path=str(people), place="codesfile.amend_card").replace(", 5)", ", 60)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert (index.read_bytes(), sidecar_path(index).read_bytes()) == old
    np.testing.assert_array_equal(answer(people, k=60), oracle(crowd(400), crowd(4, seed=30), 60))


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_index(people: Path) -> None:
    """FAISS exceeds the file size limit of the process."""
    index = codes_path(people, "sq8")
    old = index.read_bytes()
    write_gallery(people, crowd(400, seed=33), run_id="run-2")
    code = KILLED.format(root=str(ROOT), path=str(people), place="unused").replace(
        "FlatIndex(gallery)",
        "FlatIndex(gallery)\n    import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))",
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "StorageError: E-STORAGE: " in result.stderr
    assert_names(result.stderr, people)
    assert index.read_bytes() == old
    assert not list(people.parent.glob("*.partial"))
