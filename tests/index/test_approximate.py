"""Approximate search compared with NumPy: hits, scores, and the reported recall."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.index.approximate import ApproximateIndex
from runtime.index.codesfile import codes_path
from runtime.index.kinds import APPROXIMATE
from runtime.index.sidecar import sidecar_path
from runtime.storage.file import EmbeddingFile
from tests.index.test_flat import oracle, unit_rows, write_gallery
from tests.support.errors import raises

ROWS, DIMENSION = 3000, 40


def crowd(rows: int = ROWS, dimension: int = DIMENSION, seed: int = 0) -> NDArray[np.float32]:
    """Make unit rows, four per person. Later directions are weak, and the last eighth is zero."""
    rng = np.random.default_rng(seed)
    people = np.repeat(rng.standard_normal((-(-rows // 4), dimension)), 4, axis=0)[:rows]
    spread = np.exp(-np.arange(dimension) / 20) * (np.arange(dimension) < dimension * 7 // 8)
    vectors = (people + 0.8 * rng.standard_normal((rows, dimension))) * spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact_score(vectors: NDArray[np.floating], query: NDArray[np.float32]) -> NDArray[np.float32]:
    return (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("codes") / "people.h5", crowd())


@pytest.mark.slow
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_search_finds_nearly_all_hits_with_exact_scores(people: Path, kind: str) -> None:
    queries = crowd(60, seed=5)
    expected = oracle(crowd(), queries, 20)
    with EmbeddingFile(people) as gallery, ApproximateIndex(gallery, kind, 20) as index:
        rows, scores = index.search(queries, 20)
        single_results = [index.search(query[None], 20) for query in queries]
    recall = np.mean([len(set(hits) & set(right)) for hits, right in zip(rows, expected, strict=True)]) / 20
    assert recall >= 0.98  # 60 other queries: three standard errors below the tuned 0.997
    for query, hits, score in zip(queries, rows, scores, strict=True):
        np.testing.assert_array_equal(score, exact_score(crowd()[hits], query))
        assert (np.lexsort((hits, -score)) == np.arange(20)).all()
        assert len(set(hits.tolist())) == 20
    np.testing.assert_array_equal(np.concatenate([r for r, _ in single_results]), rows)
    np.testing.assert_array_equal(np.concatenate([s for _, s in single_results]), scores)


@pytest.mark.slow
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_reported_recall_equals_the_measured_recall(people: Path, kind: str) -> None:
    vectors = crowd()
    sample = np.sort(np.random.default_rng(2).choice(ROWS, 200, replace=False))
    with EmbeddingFile(people) as gallery, ApproximateIndex(gallery, kind, 50) as index:
        facts = index.facts
        assert facts.measured is not None
        # One extra hit, because each row finds itself and is excluded from both results.
        rows, _ = index._index.search(vectors[sample], 51, facts.measured.effort, facts.measured.candidates)
    hits = 0
    for query, hit_rows, right in zip(sample, rows, oracle(vectors, vectors[sample], 51), strict=True):
        assert query in hit_rows
        hits += len(set(hit_rows) & set(right)) - 1
    assert facts.measured.recall == pytest.approx(hits / (50 * 200), abs=1e-12)
    assert facts.measured.recall >= 0.99
    assert (facts.measured.k, facts.measured.sample) == (50, 200)
    card = json.loads(sidecar_path(codes_path(people, kind)).read_text())
    assert facts.measured.recall in [entry["recall"] for entry in card["measured"]]
    assert facts.measured.latency_ms > 0
    assert facts.exact_ms is not None


@pytest.mark.slow
def test_a_file_in_half_precision_is_searched(tmp_path: Path) -> None:
    vectors = crowd().astype(np.float16)
    path = write_gallery(tmp_path / "half.h5", vectors)
    query = crowd(1, seed=6)
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, "sq8", 10) as index:
        rows, scores = index.search(query, 10)
    np.testing.assert_array_equal(rows, oracle(vectors, query, 10))
    np.testing.assert_array_equal(scores[0], exact_score(vectors[rows[0]], query[0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_more_hits_than_measured_fall_back_to_exact_search(people: Path, kind: str) -> None:
    path = codes_path(people, kind)
    query = crowd(5, seed=7)
    with EmbeddingFile(people) as gallery:
        ApproximateIndex(gallery, kind, 10).__exit__(None, None, None)
        before = path.stat().st_ino
        with ApproximateIndex(gallery, kind, 120) as index:
            rows, _ = index.search(query, 120)
            assert index.facts.measured is not None
            assert index.facts.measured.k == 120
            exact, _ = index.search(query, 300)  # more than it was opened for, so its recall was never measured
    assert path.stat().st_ino == before
    assert [entry["k"] for entry in json.loads(sidecar_path(path).read_text())["measured"]][-1] == 120
    np.testing.assert_array_equal(exact, oracle(crowd(), query, 300))
    right = oracle(crowd(), query, 120)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(rows, right, strict=True)]) >= 0.97 * 120


@pytest.mark.slow
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_all_rows_may_be_requested(tmp_path: Path, kind: str) -> None:
    path = write_gallery(tmp_path / "few.h5", crowd(300))
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, kind, 1000) as index:
        rows, scores = index.search(crowd(2, seed=8), 1000)
    assert sorted(rows[0].tolist()) == sorted(rows[1].tolist()) == list(range(300))
    np.testing.assert_array_equal(rows, oracle(crowd(300), crowd(2, seed=8), 300))
    assert np.isfinite(scores).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_copies_and_zero_rows_are_found(tmp_path: Path, kind: str) -> None:
    vectors = crowd()
    vectors[100:400] = vectors[100]
    vectors[1000:1100] = 0
    path = write_gallery(tmp_path / "copies.h5", vectors)
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, kind, 60) as index:
        assert index.facts.measured is not None
        assert index.facts.measured.recall >= 0.99  # any copy is a correct hit
        rows, scores = index.search(np.concatenate([vectors[100:101], np.zeros((1, DIMENSION), np.float32)]), 60)
    assert len(set(scores[0].tolist())) == 1
    assert set(rows[0].tolist()) <= set(range(100, 400))
    assert (scores[1] == 0).all()
    assert (rows >= 0).all()


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_identical_rows_are_searched(tmp_path: Path, kind: str, value: float) -> None:
    vectors = np.zeros((400, 24), np.float32)
    vectors[:, 0] = value
    path = write_gallery(tmp_path / "same.h5", vectors)
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, kind, 5) as index:
        rows, scores = index.search(np.eye(1, 24, dtype=np.float32), 5)
    assert len(set(rows[0].tolist())) == 5
    assert (scores == value).all()


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_too_few_rows_for_training_are_searched(tmp_path: Path, kind: str) -> None:
    for rows in (0, 1, 255):
        path = write_gallery(tmp_path / f"{rows}.h5", crowd(256)[:rows]) if rows else empty(tmp_path / "0.h5")
        with EmbeddingFile(path) as gallery, raises(ConfigError, rows, 256, "flat"):
            ApproximateIndex(gallery, kind, 5)
    path = write_gallery(tmp_path / "256.h5", crowd(256))
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, kind, 5) as index:
        np.testing.assert_array_equal(index.search(crowd(1, seed=9), 5)[0], oracle(crowd(256), crowd(1, seed=9), 5))


def empty(path: Path) -> Path:
    write_gallery(path, crowd(256))
    with h5py.File(path, "r+") as file:
        for name in ("embeddings", "image_paths"):
            old = file[name]
            shape, kind = (0, *old.shape[1:]), old.dtype
            del file[name]
            file.create_dataset(name, shape, kind)
    return path


@pytest.mark.slow
def test_exact_search_completes_lists_with_too_few_rows(people: Path) -> None:
    query = crowd(3, seed=10)
    with EmbeddingFile(people) as gallery, ApproximateIndex(gallery, "ivf", 900) as index:
        measured = index._measured
        index._measured = type(measured)(
            measured.k, measured.recall, measured.sample, 1, measured.candidates, measured.latency_ms
        )
        rows, _ = index.search(query, 900)  # one list of 64 holds no 900 rows
    np.testing.assert_array_equal(rows, oracle(crowd(), query, 900))


def test_zero_queries_give_no_hits(people: Path) -> None:
    with EmbeddingFile(people) as gallery, ApproximateIndex(gallery, "sq8", 5) as index:
        with raises(ConfigError, 1):
            index.search(crowd(1), 0)
        with raises(ConfigError, f"(q, {DIMENSION})"):
            index.search(unit_rows(1, 16), 1)
        assert index.search(np.empty((0, DIMENSION), np.float32), 5)[0].shape == (0, 5)


def test_an_index_that_cannot_be_stored_still_answers(tmp_path: Path) -> None:
    path = write_gallery(tmp_path / "people.h5", crowd(300))
    (tmp_path / "people.h5.faiss-sq8.partial").mkdir()
    with EmbeddingFile(path) as gallery:
        with raises(OutputExistsError, "people.h5.faiss-sq8.partial"):
            ApproximateIndex(gallery, "sq8", 5)
        codes_path(path, "x").with_name("people.h5.faiss").unlink()
        (tmp_path / "people.h5.faiss.partial").mkdir()
        with raises(StorageError, path, "ivf", "--index flat"):
            ApproximateIndex(gallery, "ivf", 5)


@pytest.mark.slow
def test_eight_bits_separate_rows_that_four_bits_cannot(tmp_path: Path) -> None:
    """This is why two kinds exist: an untrained network gives rows with cosines near 0.99."""
    rng = np.random.default_rng(4)
    noise, centre = rng.standard_normal((6000, 64)), rng.standard_normal(64)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = centre / np.linalg.norm(centre) + 0.1 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path = write_gallery(tmp_path / "people.h5", vectors.astype(np.float32))
    recall = {}
    with EmbeddingFile(path) as gallery:
        for kind in APPROXIMATE:
            with ApproximateIndex(gallery, kind, 10) as index:
                assert index.facts.measured is not None
                recall[kind] = index.facts.measured.recall
    assert recall["ivf"] < recall["sq8"]
    assert recall["sq8"] >= 0.99
