"""An index next to a file can hide a row but never add one, because the file's checksums decide."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import StorageError
from runtime.index.check import discard_indexes, ensure_true_index, find_index_damage, index_paths
from runtime.index.indexfile import ensure_index, index_path
from runtime.index.sidecar import mark_of, sidecar_path
from runtime.search.search import Search
from runtime.storage.file import EmbeddingFile
from tests.index.test_flat import write_gallery
from tests.support.clustered_files import people_rows, write_file
from tests.support.errors import raises
from tests.support.facemill_command import facemill

ROWS, WIDTH = 600, 16


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "people.h5", unit_rows())


def unit_rows() -> NDArray[np.float32]:
    rows = np.random.default_rng(3).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def search_row(path: Path, row: int, index: str = "flat") -> list[tuple[int, float]]:
    """Search with the vector of a row; return the hits."""
    with Search(path, index=index, device="cpu") as search:
        (answer,) = search.find_vectors(unit_rows()[row], k=3)
    return [(hit.row, hit.score) for hit in answer.hits]


def sign_change(change: Callable[[NDArray[np.float32]], NDArray[np.float32]], path: Path) -> None:
    """Change the rows of an index, and sign it again in its sidecar."""
    index = index_path(path)
    data = index.read_bytes()
    head, rows = data[: -4 * ROWS * WIDTH], np.frombuffer(data[-4 * ROWS * WIDTH :], np.float32).reshape(ROWS, WIDTH)
    index.write_bytes(head + np.ascontiguousarray(change(rows)).tobytes())
    card = json.loads(sidecar_path(index).read_text())
    card |= {"sha256": hashlib.sha256(index.read_bytes()).hexdigest(), "mark": mark_of(index)}
    sidecar_path(index).write_text(json.dumps(card))


FORGERIES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "rows of others": lambda rows: np.roll(rows, 30, axis=0),
    "a row twice": lambda rows: np.where(np.arange(ROWS)[:, None] == 7, rows[5], rows),
    "a bit": lambda rows: rows * np.where(np.arange(ROWS)[:, None] == 5, np.float32(1.0000001), np.float32(1)),
    "no numbers": lambda rows: np.where(np.arange(ROWS)[:, None] == 5, np.float32("nan"), rows),
}


@pytest.mark.slow
@pytest.mark.parametrize("index", ["flat", "ivf", "sq8"])
@pytest.mark.parametrize("forgery", ["rows of others", "a row twice"])
def test_a_forged_index_cannot_add_rows(gallery: Path, forgery: str, index: str) -> None:
    expected = search_row(gallery, 5, index)
    assert expected[0] == (5, pytest.approx(1.0, abs=1e-6))
    sign_change(FORGERIES[forgery], gallery)
    assert search_row(gallery, 5, index) == expected
    if index == "flat" or forgery == "rows of others":  # the codes do not propose the forged row for this query
        with EmbeddingFile(gallery) as file:
            assert list(find_index_damage(file)) == []  # it was rebuilt


@pytest.mark.parametrize("forgery", FORGERIES)
def test_verify_detects_a_forged_index_and_pairs_ignore_it(gallery: Path, forgery: str) -> None:
    with EmbeddingFile(gallery) as file:
        path = ensure_index(file)
        assert path is not None
        content = path.read_bytes()
        assert list(find_index_damage(file)) == []
        sign_change(FORGERIES[forgery], gallery)
        (finding,) = find_index_damage(file)
        assert str(path) in finding
        assert "row" in finding
        assert ensure_true_index(file) == path
        assert path.read_bytes() == content


def test_a_changed_approximate_index_is_detected(gallery: Path) -> None:
    search_row(gallery, 5, "sq8")
    path = index_paths(gallery)[2]
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with EmbeddingFile(gallery) as file:
        (finding,) = find_index_damage(file)
        assert str(path) in finding
        sidecar_path(path).write_text("[1]")
        (finding,) = find_index_damage(file)
    assert "sidecar" in finding


def test_an_outdated_index_is_no_damage(gallery: Path) -> None:
    search_row(gallery, 5)
    write_gallery(gallery, unit_rows()[::-1], run_id="run-2")
    with EmbeddingFile(gallery) as file:
        assert list(find_index_damage(file)) == []


def test_a_wrong_index_that_cannot_be_removed_is_an_error(gallery: Path) -> None:
    search_row(gallery, 5)
    index_path(gallery).unlink()
    index_path(gallery).mkdir()
    with raises(StorageError, index_path(gallery)):
        discard_indexes(gallery, "its row 5 differs")


@pytest.mark.slow
def test_the_command_names_the_damaged_index(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.h5"
    assert facemill("process", photos / "3", "-o", path, "--engine", tiny_engine).returncode == 0
    photo = min((photos / "3").iterdir())
    assert facemill("search", path, photo, "-k", 1, "--index", "flat").returncode == 0
    assert facemill("verify", path).stdout.splitlines()[-1] == "whole"
    data = bytearray(index_path(path).read_bytes())
    data[-1] ^= 1
    index_path(path).write_bytes(data)
    result = facemill("verify", path)
    assert result.returncode == 1
    assert str(index_path(path)) in result.stdout
    answer = json.loads(facemill("verify", path, "--json").stdout)
    assert (answer["whole"], len(answer["indexes"]), answer["findings"]) == (False, 1, [])
    result = facemill("repair", path)
    assert result.returncode == 0
    assert "nothing to repair" in result.stdout


@pytest.mark.parametrize("target", ["index", "sidecar"])
def test_a_pipe_in_place_of_an_index_does_not_block(gallery: Path, target: str) -> None:
    search_row(gallery, 5)
    path = index_path(gallery) if target == "index" else sidecar_path(index_path(gallery))
    path.unlink()
    os.mkfifo(path)
    with EmbeddingFile(gallery) as file:
        (finding,) = find_index_damage(file)
        assert "regular file" in finding
    assert search_row(gallery, 5)[0][0] == 5


def test_a_foreign_sidecar_is_no_internal_error(gallery: Path) -> None:
    expected = search_row(gallery, 5)
    for text in (
        "[" * 100_000,
        '{"source": 1}',
        "{" + " " * (2 << 20) + "}",
        '{"format": 1, "source": {"run_id": 1e999}}',
    ):
        sidecar_path(index_path(gallery)).write_text(text)
        assert search_row(gallery, 5) == expected


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_an_index_that_others_may_have_written_is_built_again(tmp_path: Path, suffix: str) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([3, 3]))
    with EmbeddingFile(path) as gallery:
        index = ensure_index(gallery)
        assert index is not None
        written = index.with_name(index.name + suffix)
        written.chmod(0o666)
        assert list(find_index_damage(gallery))
        assert ensure_index(gallery) == index
        assert written.stat().st_mode & 0o777 == path.stat().st_mode & 0o777
        assert list(find_index_damage(gallery)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_an_index_of_another_user_is_built_again_unless_the_file_is_theirs_too(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([3, 3]))
    with EmbeddingFile(path) as gallery:
        index = ensure_index(gallery)
        assert index is not None
        for name in (index, sidecar_path(index), path):
            os.chown(name, 4321, 4321)
        ensure_index(gallery)
        assert index.stat().st_uid == 4321
        os.chown(path, 0, 0)
        ensure_index(gallery)
        assert index.stat().st_uid == 0
