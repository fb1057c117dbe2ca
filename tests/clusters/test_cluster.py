"""From a file to clusters: every link is used, and the default threshold comes from the calibration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.clusters.clusters import (
    Clusters,
    cluster_by_count,
    cluster_by_threshold,
    default_threshold,
    number_clusters,
)
from runtime.clusters.graph import find_people
from runtime.errors import ConfigError, TooManyPairsError
from runtime.metrics.falsematch import Calibration
from runtime.modelspec import load_spec
from runtime.pairs.checkpoint import Checkpoint
from runtime.pairs.pairs import PairQuery
from runtime.storage.file import EmbeddingFile
from tests.oracles.agreement import agreement
from tests.support.clustered_files import links_by_numpy, people_rows, person_of_rows, write_file
from tests.support.errors import assert_names, raises
from tests.support.extras import require_package

require_package("scipy", "cluster")
SIZES = [1] * 30 + [2] * 30 + [5] * 20 + [9] * 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows(SIZES, noise=0.75))


def calibrate(file: Path, first: int, at_least: Sequence[int], pairs: int) -> None:
    with h5py.File(file, "r+") as opened:
        contract = {"dimension": 64, "precision": "fp32"}
        calibration = Calibration(contract, "lfw", 10, 5, pairs, first, tuple(at_least), "2030-01-01", "1")
        opened["metadata"].attrs["score_calibration"] = calibration.to_json()


def cluster_file(file: Path, threshold: float, *, seed: int = 0, **how: Any) -> Clusters:
    """Cluster in tiles of 37 rows, so that there are many blocks."""
    with EmbeddingFile(file) as gallery, Checkpoint(file) as parts:
        return cluster_by_threshold(gallery, parts, PairQuery(threshold, device="cpu", tile_rows=37, **how), seed=seed)


@pytest.mark.slow
def test_clusters_equal_those_of_all_links(file: Path) -> None:
    vectors = people_rows(SIZES, noise=0.75)
    labels, scores = find_people(links_by_numpy(vectors, 0.42), len(vectors), seed=4)
    expected = number_clusters(labels, scores, method="whispers", threshold=0.42, seed=4)
    clusters = cluster_file(file, 0.42, seed=4)
    np.testing.assert_array_equal(clusters.labels, expected.labels)
    np.testing.assert_allclose(clusters.scores, expected.scores, atol=1e-6)
    assert (clusters.method, clusters.threshold, clusters.k, clusters.seed) == ("whispers", 0.42, None, 4)
    assert agreement(clusters.labels.astype(np.int64), person_of_rows(SIZES)).f1 > 0.95
    # the comparisons are stored and answer the same request again
    again = cluster_file(file, 0.42, seed=4)
    np.testing.assert_array_equal(again.labels, clusters.labels)


def test_two_faces_of_one_photo_are_two_people(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([2], noise=0.1), ranks=[0, 1])
    assert cluster_file(path, 0.5).labels.tolist() == [1, 1]
    with h5py.File(path, "r+") as file:
        file["outcomes/embeddings"][:] = [2, 0]  # both rows belong to the first photo
    assert cluster_file(path, 0.5).labels.tolist() == [1, 2]


def test_an_approximate_search_is_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster_file(file, 0.42, budget_s=1e-9)
    assert "APPROXIMATE" in caplog.text


def test_clustering_into_a_given_number_of_people(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        clusters = cluster_by_count(gallery, 7, seed=4)
    assert (clusters.method, clusters.threshold, clusters.k, clusters.seed, clusters.count) == (
        "k-means",
        None,
        7,
        4,
        7,
    )


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_clustering_very_few_rows(tmp_path: Path, rows: int) -> None:
    path = write_file(tmp_path / "few.h5", people_rows([2], noise=0.1)[:rows])
    assert cluster_file(path, 0.5).labels.tolist() == [1] * rows


def test_zero_rows_are_in_no_cluster(tmp_path: Path) -> None:
    vectors = people_rows([3, 3], noise=0.1)
    vectors[[0, 4]] = 0
    assert cluster_file(write_file(tmp_path / "zeros.h5", vectors), 0.5).labels.tolist() == [3, 1, 1, 2, 4, 2]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, float("nan")])
def test_an_invalid_threshold_is_refused(file: Path, threshold: float) -> None:
    with raises(ConfigError, 0, 1):
        cluster_file(file, threshold)


def test_more_links_than_fit_in_memory_are_refused(file: Path) -> None:
    with raises(TooManyPairsError, "--threshold"):
        cluster_file(file, 0.01, max_pairs=2000)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # 235 rows; 0.02 false links a row are pairs * 0.02 / 235 false pairs of the calibration
        (235 * 50 * 100, 0.301),  # 100 of them
        (235 * 50 * 99, 0.302),  # 99: the threshold rises by 0.001
        (235 * 50 * 10**6, 0.3),
        (235 * 50 * 7, 0.303),
        (235 * 50 * 3, 0.304),  # no false pair among so many that this proves it
    ],
)
def test_the_default_threshold_is_the_lowest_with_few_false_links(
    file: Path, pairs: int, expected: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert sum(SIZES) == 235
    calibrate(file, 300, [1000, 100, 50, 7, 0], pairs)
    with EmbeddingFile(file) as gallery:
        assert default_threshold(gallery) == pytest.approx(expected)
        assert not caplog.records
        # the rule of the docstring, checked with the calibration's own figures for a search
        calibration = json.loads(gallery.metadata["score_calibration"])
        count = calibration["at_least"][round(expected * 1000) - 300]
        assert 235 * count / pairs <= 0.02


def test_a_calibration_with_too_few_pairs_is_used_with_a_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibrate(file, 300, [1000, 100, 0], 235 * 50)
    with EmbeddingFile(file) as gallery:
        assert default_threshold(gallery) == pytest.approx(0.302)
    assert_names(caplog.text, 0.02, 235, 0.302)


def test_without_a_calibration_the_error_lists_the_options(file: Path) -> None:
    with EmbeddingFile(file) as gallery, pytest.raises(ConfigError) as error:
        default_threshold(gallery)
    for way in ("--threshold", "-k", "facemill evaluate FOLDER --calibrate"):
        assert way in str(error.value)


@pytest.mark.parametrize(("people", "enough"), [(20, True), (21, False)])
def test_without_a_calibration_few_photos_use_the_threshold_of_compare(
    tmp_path: Path, people: int, enough: bool
) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([1] * people))
    shipped = load_spec("facemill-512")
    with h5py.File(path, "r+") as opened:
        attributes = opened["metadata"].attrs
        attributes["model_sha256"] = str(shipped.sha256)
        contract = json.loads(attributes["contract"])
        attributes["contract"] = json.dumps({**contract, "model_sha256": str(shipped.sha256)})
    with EmbeddingFile(path) as gallery:
        if enough:
            assert default_threshold(gallery) == shipped.threshold
            return
        with raises(ConfigError, shipped.threshold, "facemill compare", "--threshold", "-k"):
            default_threshold(gallery)
