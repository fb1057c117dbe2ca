"""k-means finds planted clusters, gives the same result for the same seed, and explains what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.clusters import kmeans
from runtime.clusters.kmeans import split_by_kmeans
from runtime.errors import ConfigError
from runtime.storage.file import EmbeddingFile
from tests.oracles.agreement import agreement
from tests.support.clustered_files import people_rows, person_of_rows, write_file
from tests.support.errors import raises

pytest.importorskip("faiss", reason="faiss is not installed: pip install '.[cpu]'")
SIZES = [60, 50, 40, 40, 30]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("kmeans") / "people.h5", people_rows(SIZES, noise=0.5))


def best_of(file: Path, k: int, seeds: int = 8) -> float:
    with EmbeddingFile(file) as gallery:
        return max(
            agreement(split_by_kmeans(gallery, k, seed=seed)[0], person_of_rows(SIZES)).f1 for seed in range(seeds)
        )


def test_planted_people_are_recovered(file: Path) -> None:
    assert best_of(file, len(SIZES)) == 1


def test_every_row_joins_its_nearest_centre_with_that_score(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 64 * 4 * 7)  # 7 rows at a time
    calls: list[np.ndarray] = []
    nearest = kmeans._nearest

    def record(
        faiss: object, gallery: EmbeddingFile, mask: np.ndarray, centres: np.ndarray, listener: object
    ) -> object:
        calls.append(centres)
        return nearest(faiss, gallery, mask, centres, listener)  # type: ignore[arg-type]

    monkeypatch.setattr(kmeans, "_nearest", record)
    with EmbeddingFile(file) as gallery:
        labels, scores = split_by_kmeans(gallery, 5)
    products = people_rows(SIZES, noise=0.5).astype(np.float64) @ calls[0].T.astype(np.float64)  # (N, 5)
    np.testing.assert_array_equal(labels, products.argmax(axis=1))
    np.testing.assert_allclose(scores, products.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(calls[0], axis=1), 1, atol=1e-5)  # spherical


def test_the_seed_decides_the_clusters(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        first, again, seed_2 = (split_by_kmeans(gallery, 20, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert agreement(first, seed_2).f1 < 1


def test_training_uses_a_bounded_sample(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "_MAX_SAMPLE_BYTES", 100 * 4 * 64)
    sizes: list[int] = []
    improve = kmeans._improve

    def count(faiss: object, sample: np.ndarray, centres: np.ndarray, seed: int) -> np.ndarray:
        sizes.append(len(sample))
        return improve(faiss, sample, centres, seed)

    monkeypatch.setattr(kmeans, "_improve", count)
    assert best_of(file, 5, seeds=3) > 0.7
    assert set(sizes) == {100}
    with (
        EmbeddingFile(file) as gallery,
        raises(ConfigError, 101, 100, "--threshold"),
    ):
        split_by_kmeans(gallery, 101)


def test_a_row_of_zeros_is_in_no_cluster_and_moves_no_centre(tmp_path: Path) -> None:
    vectors = people_rows([5, 5], noise=0.2)
    vectors[[2, 7]] = 0
    with EmbeddingFile(write_file(tmp_path / "people.h5", vectors)) as gallery:
        labels, scores = split_by_kmeans(gallery, 2)
        assert np.flatnonzero(labels < 0).tolist() == [2, 7]
        assert scores[[2, 7]].tolist() == [0, 0]
        with raises(ConfigError, 8):
            split_by_kmeans(gallery, 9)


@pytest.mark.parametrize("k", [0, 221])
def test_more_people_than_rows_are_refused(file: Path, k: int) -> None:
    with (
        EmbeddingFile(file) as gallery,
        raises(ConfigError, k, 220, 1),
    ):
        split_by_kmeans(gallery, k)


def test_with_as_many_people_as_rows_each_row_is_a_cluster(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        labels, scores = split_by_kmeans(gallery, 220)
    assert len(np.unique(labels)) == 220
    np.testing.assert_allclose(scores, 1, atol=1e-5)
