"""Exact search compared with NumPy, ties, damage, and concurrent searches."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError, StorageError
from runtime.index.flat import FlatIndex
from runtime.index.indexfile import index_path
from runtime.index.sidecar import sidecar_path
from runtime.storage.file import EmbeddingFile
from tests.support.errors import raises


def unit_rows(rows: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_gallery(path: Path, vectors: NDArray[np.floating], run_id: str = "run-1", **metadata: object) -> Path:
    """Write the parts of an embedding file that a search reads."""
    contract = {"root": "/photos", "dimension": vectors.shape[1]}
    with h5py.File(path, "w") as file:
        chunks = (min(64, len(vectors)), vectors.shape[1])
        file.create_dataset("embeddings", data=vectors, chunks=chunks, fletcher32=True)
        file["image_paths"] = np.array([f"p{i}.jpg".encode() for i in range(len(vectors))], "S16")
        file.create_group("metadata").attrs.update(
            {"format_version": 1, "run_id": run_id, "dimension": vectors.shape[1], "contract": json.dumps(contract)}
            | metadata
        )
    return path


def oracle(vectors: NDArray[np.floating], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    scores = (queries.astype(np.float64)[:, None] * vectors.astype(np.float64)[None]).sum(-1).astype(np.float32)
    row = np.arange(len(vectors))
    return np.stack([np.lexsort((row, -line))[:k] for line in scores])


def answer(path: Path, queries: NDArray[np.float32], k: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    with EmbeddingFile(path) as gallery, FlatIndex(gallery) as index:
        return index.search(queries, k)


@pytest.fixture
def gallery_file(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "people.h5", unit_rows(3000))


@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_answers_equal_exact_numpy(tmp_path: Path, queries: int, dtype: type) -> None:
    vectors = unit_rows(3000).astype(dtype)
    path = write_gallery(tmp_path / "people.h5", vectors)
    targets = unit_rows(queries, seed=1)
    for _ in range(2):  # built, then loaded
        rows, scores = answer(path, targets, 10)
        np.testing.assert_array_equal(rows, oracle(vectors, targets, 10))
        np.testing.assert_allclose(
            scores, np.take_along_axis(targets @ vectors.astype(np.float32).T, rows, 1), atol=1e-6
        )


@pytest.mark.slow
def test_one_query_and_a_batch_give_identical_scores(gallery_file: Path) -> None:
    queries = unit_rows(50, seed=2)
    rows, scores = answer(gallery_file, queries)
    for i in range(50):
        one_rows, one_scores = answer(gallery_file, queries[i : i + 1])
        np.testing.assert_array_equal(one_rows[0], rows[i])
        np.testing.assert_array_equal(one_scores[0], scores[i])


@pytest.mark.parametrize("k", [1, 7, 99, 100, 101, 250])
def test_ties_go_to_the_lower_row_for_any_k(tmp_path: Path, k: int) -> None:
    vectors = unit_rows(400)
    vectors[np.random.default_rng(3).permutation(400)[:100]] = vectors[0]
    path = write_gallery(tmp_path / "ties.h5", vectors)
    queries = np.concatenate([vectors[:1], unit_rows(2, seed=4)])
    rows, _ = answer(path, queries, k)
    np.testing.assert_array_equal(rows, oracle(vectors, queries, k))


def test_k_may_exceed_the_rows_or_be_zero(tmp_path: Path) -> None:
    queries = unit_rows(2)
    rows, scores = answer(write_gallery(tmp_path / "few.h5", unit_rows(3)), queries, 10)
    assert rows.shape == scores.shape == (2, 3)
    assert sorted(rows[0]) == [0, 1, 2]
    empty = tmp_path / "none.h5"
    with h5py.File(empty, "w") as file:
        file.create_dataset("embeddings", shape=(0, 32), dtype=np.float32)
        file.create_dataset("image_paths", shape=(0,), dtype="S1")
        file.create_group("metadata").attrs.update(
            {"format_version": 1, "run_id": "x", "dimension": 32, "contract": '{"root": "/"}'}
        )
    assert answer(empty, queries)[0].shape == (2, 0)
    assert not index_path(empty).exists()


def test_invalid_queries_are_refused(gallery_file: Path) -> None:
    with EmbeddingFile(gallery_file) as gallery, FlatIndex(gallery) as index:
        with raises(ConfigError, 1):
            index.search(unit_rows(1), 0)
        with raises(ConfigError, "(q, 32)"):
            index.search(unit_rows(1, 16), 1)
        for wrong in (np.nan, np.inf):
            with raises(ConfigError, "(1, 32)", "(q, 32)"):
                index.search(np.full((1, 32), wrong, np.float32), 1)
        with raises(ConfigError, "3e+30"):
            index.search(unit_rows(1) * np.float32(3e30), 1)


def test_the_index_is_a_plain_faiss_file(gallery_file: Path) -> None:
    import faiss

    answer(gallery_file, unit_rows(1))
    index = faiss.read_index(str(index_path(gallery_file)))
    assert (index.ntotal, index.d, index.metric_type) == (3000, 32, faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_array_equal(index.reconstruct_n(0, 3000), unit_rows(3000))
    expected = faiss.IndexFlatIP(32)
    expected.add(unit_rows(3000))
    assert faiss.serialize_index(expected).tobytes() == index_path(gallery_file).read_bytes()


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # damage without any error message


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


DAMAGES = {
    "flipped bit": lambda index: flip_byte(index),
    "cut short": lambda index: truncate(index),
    "empty": lambda index: index.write_bytes(b""),
    "no index": lambda index: index.unlink(),
    "not an index": lambda index: index.write_bytes(os.urandom(5000)),
    "header of another index": lambda index: forge_header(index),
    "no sidecar": lambda index: sidecar_path(index).unlink(),
    "sidecar cut short": lambda index: cut_sidecar(index),
    "sidecar of another kind": lambda index: sidecar_path(index).write_text("[1]"),
    "sidecar not text": lambda index: sidecar_path(index).write_bytes(b"\xff\xfe\x00"),
    "sidecar a folder": lambda index: (sidecar_path(index).unlink(), sidecar_path(index).mkdir()),
}


def forge_header(index: Path) -> None:
    """Claim more rows than exist, with a matching sidecar."""
    data = bytearray(index.read_bytes())
    data[8:16] = (1 << 40).to_bytes(8, "little")
    index.write_bytes(data)
    card = json.loads(sidecar_path(index).read_text())
    card["sha256"] = hashlib.sha256(data).hexdigest()
    sidecar_path(index).write_text(json.dumps(card))


def cut_sidecar(index: Path) -> None:
    card = sidecar_path(index)
    card.write_text(card.read_text()[:50])


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_index_is_never_used(gallery_file: Path, kind: str) -> None:
    queries = unit_rows(5, seed=5)
    expected = answer(gallery_file, queries)
    DAMAGES[kind](index_path(gallery_file))
    rows, scores = answer(gallery_file, queries)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(scores, expected[1])


def test_the_index_is_rebuilt_only_for_a_new_run(gallery_file: Path) -> None:
    query = unit_rows(1, seed=6)
    answer(gallery_file, query)
    before = index_path(gallery_file).stat().st_mtime_ns
    answer(gallery_file, query)
    assert index_path(gallery_file).stat().st_mtime_ns == before
    new_rows = unit_rows(3000, seed=7)
    write_gallery(gallery_file, new_rows, run_id="run-2")
    np.testing.assert_array_equal(answer(gallery_file, query)[0], oracle(new_rows, query, 5))


def test_a_file_changed_in_place_gets_a_new_index(gallery_file: Path) -> None:
    query = unit_rows(1, seed=8)
    answer(gallery_file, query)
    with h5py.File(gallery_file, "r+") as file:
        file["embeddings"][17] = query[0]
    assert answer(gallery_file, query)[0][0, 0] == 17


def test_a_copied_index_is_checked_by_content_and_reused(gallery_file: Path, tmp_path: Path) -> None:
    answer(gallery_file, unit_rows(1))
    copy_folder = tmp_path / "there"
    copy_folder.mkdir()
    for path in (gallery_file, index_path(gallery_file), sidecar_path(index_path(gallery_file))):
        copy = copy_folder / path.name
        copy.write_bytes(path.read_bytes())
        os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    before = index_path(copy_folder / "people.h5").stat().st_ino
    answer(copy_folder / "people.h5", unit_rows(1))
    assert index_path(copy_folder / "people.h5").stat().st_ino == before


def test_an_index_that_cannot_be_written_stays_in_memory(gallery_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    index_path(gallery_file).with_name("people.h5.faiss.partial").mkdir()
    queries = unit_rows(3, seed=9)
    with caplog.at_level(logging.WARNING):
        rows, _ = answer(gallery_file, queries)
    np.testing.assert_array_equal(rows, oracle(unit_rows(3000), queries, 5))
    assert "in memory" in caplog.text
    assert not index_path(gallery_file).exists()


def test_files_of_a_killed_search_are_reused(gallery_file: Path) -> None:
    partial = index_path(gallery_file).with_name("people.h5.faiss.partial")
    partial.write_bytes(os.urandom(3_000_000))
    queries = unit_rows(3, seed=10)
    np.testing.assert_array_equal(answer(gallery_file, queries)[0], oracle(unit_rows(3000), queries, 5))
    assert not partial.exists()
    assert sorted(p.name for p in gallery_file.parent.iterdir()) == [
        "people.h5",
        "people.h5.faiss",
        "people.h5.faiss.json",
    ]


def _answer_in_child(path: Path, seed: int) -> NDArray[np.int64]:
    return answer(path, unit_rows(4, seed=seed))[0]


@pytest.mark.slow
def test_concurrent_searches_give_correct_answers(gallery_file: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        answers = pool.starmap(_answer_in_child, [(gallery_file, seed) for seed in range(8)], chunksize=1)
    for seed, rows in enumerate(answers):
        np.testing.assert_array_equal(rows, oracle(unit_rows(3000), unit_rows(4, seed=seed), 5))
    assert not list(gallery_file.parent.glob("*.partial"))


def test_damaged_vectors_are_an_error_not_an_answer(tmp_path: Path) -> None:
    vectors = unit_rows(100)
    vectors[41, 3] = np.nan
    with raises(StorageError, "row 41", "/embeddings", "nan", 1):
        answer(write_gallery(tmp_path / "nan.h5", vectors), unit_rows(1))
    vectors[41] = 0  # rows for which the network returned zero
    assert 41 not in answer(write_gallery(tmp_path / "zero.h5", vectors), unit_rows(1))[0]
    vectors[41] = np.float32(3e30)
    with raises(StorageError, "row 41", "/embeddings", "inf"):
        answer(write_gallery(tmp_path / "huge.h5", vectors), unit_rows(1))
    vectors[41] = 1.02 * unit_rows(1)
    with raises(StorageError, "row 41", "/embeddings"):
        answer(write_gallery(tmp_path / "long.h5", vectors), unit_rows(1))
    path = write_gallery(tmp_path / "bits.h5", unit_rows(100))
    with h5py.File(path) as file:
        offset = file["embeddings"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)
    with raises(StorageError, path, "/embeddings"):
        answer(path, unit_rows(1))
