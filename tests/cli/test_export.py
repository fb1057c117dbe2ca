"""The export command: formats, refusals, kills."""

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
from tests.support.extras import require_package
from tests.support.facemill_command import ROOT, facemill, facemill_process

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")
require_package("qdrant_client", "qdrant")


@pytest.fixture(scope="module")
def people(tiny_engine: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed 85 photos; returns the file."""
    path = tmp_path_factory.mktemp("export") / "people.h5"
    assert facemill("process", photos / "1", "-o", path, "--engine", tiny_engine).returncode == 0
    return path


@pytest.mark.slow
def test_each_format_has_all_rows_of_a_file(people: Path, tmp_path: Path) -> None:
    with EmbeddingFile(people) as gallery:
        vectors = np.concatenate(list(gallery.blocks()))
        names = gallery.names(range(gallery.rows))
    size = f"{len(vectors)} embeddings of 16 dimensions"
    result = facemill("export", people, "--npy", tmp_path / "npy")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'npy'}: {size}\n")
    assert UNTRAINED_WARNING in result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "embeddings.npy", mmap_mode="r"), vectors)
    lines = (tmp_path / "npy" / "paths.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == names

    result = facemill("export", people, "--parquet", tmp_path / "o.parquet")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'o.parquet'}: {size}\n")
    assert pq.read_table(tmp_path / "o.parquet")["path"].to_pylist() == names

    for sent_count, known_count in ((len(vectors), 0), (0, len(vectors))):
        result = facemill("export", people, "--qdrant", f"path:{tmp_path / 'store'}")
        assert result.returncode == 0, result.stderr
        assert (
            f"people: {size}; {sent_count} points sent, {known_count} there already, {len(vectors)} in the"
            in result.stdout
        )
    import qdrant_client

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
def test_wrong_options_are_refused(people: Path, arguments: list[str], values: Values) -> None:
    result = facemill("export", people, *arguments)
    assert_refused(result, USAGE, *values)


@pytest.mark.slow
def test_failures_exit_1_with_a_message(people: Path, tmp_path: Path) -> None:
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
        result = facemill("export", *arguments)
        assert_refused(result, code, *values)
        assert "Warning" not in result.stderr
        assert result.stdout == ""
    assert sorted(os.listdir(tmp_path)) == ["there"]


@pytest.mark.slow
def test_a_store_in_use_is_refused(people: Path, tmp_path: Path) -> None:
    import qdrant_client

    client = qdrant_client.QdrantClient(path=str(tmp_path / "store"))
    # In another process: qdrant-client leaves the lock file open when it does not get the lock.
    result = facemill_process("export", people, "--qdrant", f"path:{tmp_path / 'store'}")
    client.close()
    assert_refused(result, "E-STORAGE", tmp_path / "store", "already accessed")
    assert "Warning" not in result.stderr
    assert result.stdout == ""


def test_control_characters_in_a_path_are_escaped(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    result = facemill("export", file, "--npy", tmp_path / "a\x1b[31m\nb")
    assert result.returncode == 0
    assert result.stdout == f"{tmp_path}/a\\x1b[31m\\nb: 60 embeddings of 16 dimensions\n"


def read_vectors(output: Path) -> NDArray[np.float32]:
    if output.is_dir():
        return np.asarray(np.load(output / "embeddings.npy"))
    flat = pq.read_table(output, columns=["embedding"])["embedding"].combine_chunks().flatten()
    return np.asarray(flat).reshape(-1, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_kill_9_leaves_a_complete_export_or_none(name: str, tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=100_000, dimension=64)
    output, partial = tmp_path / name, tmp_path / f"{name}.partial"
    arguments = ["export", str(file), "--parquet" if output.suffix else "--npy", str(output)]
    kills = 0
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-m", "runtime.cli.app", *arguments], cwd=ROOT)
        while process.poll() is None and not partial.exists() and not output.exists():
            time.sleep(0.002)
        time.sleep(0.02 * attempt)
        process.kill()
        process.wait()
        if output.exists():  # the export had finished before the kill
            np.testing.assert_array_equal(read_vectors(output), vectors)
            break
        kills += partial.exists()
    assert kills > 0
    result = facemill(*arguments, "--force")
    assert result.returncode == 0, result.stderr
    assert not partial.exists()
    np.testing.assert_array_equal(read_vectors(output), vectors)
