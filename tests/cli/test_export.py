"""The export command as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline.request import UNTRAINED_WARNING
from runtime.storage.file import EmbeddingFile
from tests.support.errors import USAGE, Values, assert_refused
from tests.support.export_files import write_file
from tests.support.facemill_command import ROOT, facemill, facemill_process

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")
qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install '.[qdrant]'")


@pytest.fixture(scope="module")
def people(tiny_engine: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 85 photographs that a run made."""
    path = tmp_path_factory.mktemp("export") / "people.h5"
    assert facemill("process", photos / "1", "-o", path, "--engine", tiny_engine).returncode == 0
    return path


def test_each_form_of_a_real_file(people: Path, tmp_path: Path) -> None:
    with EmbeddingFile(people) as gallery:
        vectors = np.concatenate(list(gallery.blocks()))
        names = gallery.names(range(gallery.rows))
    said = f"{len(vectors)} embeddings of 16 dimensions"
    done = facemill("export", people, "--npy", tmp_path / "npy")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'npy'}: {said}\n")
    assert UNTRAINED_WARNING in done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "embeddings.npy", mmap_mode="r"), vectors)
    lines = (tmp_path / "npy" / "paths.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == names

    done = facemill("export", people, "--parquet", tmp_path / "o.parquet")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'o.parquet'}: {said}\n")
    assert pq.read_table(tmp_path / "o.parquet")["path"].to_pylist() == names

    for sent, kept in ((len(vectors), 0), (0, len(vectors))):
        done = facemill("export", people, "--qdrant", f"path:{tmp_path / 'store'}")
        assert done.returncode == 0, done.stderr
        assert f"people: {said}; {sent} points sent, {kept} there already, {len(vectors)} in the" in done.stdout
    client = qdrant_client.QdrantClient(path=str(tmp_path / "store"))
    (hit,) = client.query_points("people", query=vectors[5].tolist(), limit=1).points
    client.close()
    assert hit.payload["row"] == 5
    assert Path(hit.payload["path"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], ("--npy", "--parquet", "--qdrant")),
        (["--npy", "a", "--parquet", "b.parquet"], ("--npy", "--parquet", "--qdrant")),
        (["--npy", "a", "--parquet", "b.parquet", "--qdrant", "path:c"], ("--npy", "--parquet", "--qdrant")),
        (["--npy", "a", "--recreate"], ("--recreate", "--qdrant")),
        (["--parquet", "a.parquet", "--collection", "x"], ("--collection", "--qdrant")),
        (["--qdrant", "path:c", "--force"], ("--force", "--npy", "--parquet")),
    ],
)
def test_what_makes_no_sense_is_usage(people: Path, arguments: list[str], values: Values) -> None:
    done = facemill("export", people, *arguments)
    assert_refused(done, USAGE, *values)


def test_failures_are_words_and_exit_1(people: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    store = tmp_path / "store"
    for arguments, code, values in [
        ((people, "--npy", tmp_path / "there"), "E-EXISTS", (tmp_path / "there", "--force")),
        ((people, "--npy", tmp_path / "no" / "folder"), "E-CONFIG", (tmp_path / "no",)),
        ((people, "--parquet", tmp_path / "o.txt"), "E-CONFIG", (tmp_path / "o.txt", ".parquet")),
        ((people, "--qdrant", "http://127.0.0.1:1"), "E-STORAGE", ("http://127.0.0.1:1", "[Errno 111]")),
        ((people, "--qdrant", "localhost"), "E-CONFIG", ("localhost", "http://HOST:6333")),
        ((people, "--qdrant", f"path:{store}", "--collection", "../x"), "E-CONFIG", ("../x", "--collection")),
        ((tmp_path / "none.h5", "--npy", tmp_path / "x"), "E-STORAGE", (tmp_path / "none.h5",)),
    ]:
        done = facemill("export", *arguments)
        assert_refused(done, code, *values)
        assert "Warning" not in done.stderr
        assert done.stdout == ""
    assert sorted(os.listdir(tmp_path)) == ["there"]


def test_a_store_that_another_program_uses_is_left_alone(people: Path, tmp_path: Path) -> None:
    client = qdrant_client.QdrantClient(path=str(tmp_path / "store"))
    # In another process: qdrant-client leaves the lock file open when it does not get the lock.
    done = facemill_process("export", people, "--qdrant", f"path:{tmp_path / 'store'}")
    client.close()
    assert_refused(done, "E-STORAGE", tmp_path / "store", "already accessed")
    assert "Warning" not in done.stderr
    assert done.stdout == ""


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    done = facemill("export", file, "--npy", tmp_path / "a\x1b[31m\nb")
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path}/a\\x1b[31m\\nb: 60 embeddings of 16 dimensions\n"


def vectors_of(output: Path) -> NDArray[np.float32]:
    if output.is_dir():
        return np.asarray(np.load(output / "embeddings.npy"))
    flat = pq.read_table(output, columns=["embedding"])["embedding"].combine_chunks().flatten()
    return np.asarray(flat).reshape(-1, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_kill_9_at_some_moments_leaves_a_whole_export_or_none(name: str, tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=100_000, dimension=64)
    output, partial = tmp_path / name, tmp_path / f"{name}.partial"
    arguments = ["export", str(file), "--parquet" if output.suffix else "--npy", str(output)]
    killed = 0
    for moment in range(6):
        process = subprocess.Popen([sys.executable, "-m", "runtime.cli.app", *arguments], cwd=ROOT)
        while process.poll() is None and not partial.exists() and not output.exists():
            time.sleep(0.002)
        time.sleep(0.02 * moment)
        process.kill()
        process.wait()
        if output.exists():  # too late for this one
            np.testing.assert_array_equal(vectors_of(output), vectors)
            break
        killed += partial.exists()
    assert killed > 0
    done = facemill(*arguments, "--force")
    assert done.returncode == 0, done.stderr
    assert not partial.exists()
    np.testing.assert_array_equal(vectors_of(output), vectors)
