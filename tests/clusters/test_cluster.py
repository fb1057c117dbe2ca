"""From a file to clusters: the links are all that there are, and the usual threshold is the calibration's."""

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
from runtime.pairs.checkpoint import Checkpoint
from runtime.pairs.pairs import PairQuery
from runtime.storage.file import EmbeddingFile
from tests.oracles.agreement import agreement
from tests.support.clustered_files import links_by_numpy, people_rows, person_of_rows, write_file
from tests.support.errors import assert_names, raises

pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[cluster]'")
SIZES = [1] * 30 + [2] * 30 + [5] * 20 + [9] * 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows(SIZES, noise=0.75))


def calibrate(file: Path, first: int, at_least: Sequence[int], pairs: int) -> None:
    with h5py.File(file, "r+") as opened:
        contract = {"dimension": 64, "precision": "fp32"}
        found = Calibration(contract, "lfw", 10, 5, pairs, first, tuple(at_least), "2030-01-01", "1")
        opened["metadata"].attrs["score_calibration"] = found.to_json()


def clustered(file: Path, threshold: float, *, seed: int = 0, **how: Any) -> Clusters:
    """In tiles of 37 rows, so that there are many blocks."""
    with EmbeddingFile(file) as gallery, Checkpoint(file) as parts:
        return cluster_by_threshold(gallery, parts, PairQuery(threshold, device="cpu", tile_rows=37, **how), seed=seed)


def test_the_clusters_are_those_of_all_links(file: Path) -> None:
    vectors = people_rows(SIZES, noise=0.75)
    labels, scores = find_people(links_by_numpy(vectors, 0.42), len(vectors), seed=4)
    wanted = number_clusters(labels, scores, method="whispers", threshold=0.42, seed=4)
    found = clustered(file, 0.42, seed=4)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    assert (found.method, found.threshold, found.k, found.seed) == ("whispers", 0.42, None, 4)
    assert agreement(found.labels.astype(np.int64), person_of_rows(SIZES)).f1 > 0.95
    # what was compared is kept, and the same question answered by it
    again = clustered(file, 0.42, seed=4)
    np.testing.assert_array_equal(again.labels, found.labels)


def test_two_faces_of_one_photograph_are_two_people(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([2], noise=0.1), ranks=[0, 1])
    assert clustered(path, 0.5).labels.tolist() == [1, 1]
    with h5py.File(path, "r+") as file:
        file["outcomes/embeddings"][:] = [2, 0]  # both rows are of the first photograph
    assert clustered(path, 0.5).labels.tolist() == [1, 2]


def test_an_approximate_search_is_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    clustered(file, 0.42, budget_s=1e-9)
    assert "APPROXIMATE" in caplog.text


def test_a_known_number_of_people(file: Path) -> None:
    with EmbeddingFile(file) as gallery:
        found = cluster_by_count(gallery, 7, seed=4)
    assert (found.method, found.threshold, found.k, found.seed, found.count) == ("k-means", None, 7, 4, 7)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_rows(tmp_path: Path, rows: int) -> None:
    path = write_file(tmp_path / "few.h5", people_rows([2], noise=0.1)[:rows])
    assert clustered(path, 0.5).labels.tolist() == [1] * rows


def test_rows_of_zeros_are_alone(tmp_path: Path) -> None:
    vectors = people_rows([3, 3], noise=0.1)
    vectors[[0, 4]] = 0
    assert clustered(write_file(tmp_path / "zeros.h5", vectors), 0.5).labels.tolist() == [3, 1, 1, 2, 4, 2]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, float("nan")])
def test_a_threshold_that_is_none_is_refused(file: Path, threshold: float) -> None:
    with raises(ConfigError, 0, 1):
        clustered(file, threshold)


def test_more_links_than_memory_holds_are_refused(file: Path) -> None:
    with raises(TooManyPairsError, "--threshold"):
        clustered(file, 0.01, max_pairs=2000)


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        # 235 rows; 0.02 false links a row are pairs * 0.02 / 235 false pairs of the calibration
        (235 * 50 * 100, 0.301),  # 100 of them
        (235 * 50 * 99, 0.302),  # 99: one more thousandth
        (235 * 50 * 10**6, 0.3),
        (235 * 50 * 7, 0.303),
        (235 * 50 * 3, 0.304),  # none seen, and so many looked at that this shows it
    ],
)
def test_the_usual_threshold_is_the_lowest_with_few_false_links(
    file: Path, pairs: int, wanted: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert sum(SIZES) == 235
    calibrate(file, 300, [1000, 100, 50, 7, 0], pairs)
    with EmbeddingFile(file) as gallery:
        assert default_threshold(gallery) == pytest.approx(wanted)
        assert not caplog.records
        # the sentence of the docstring, by what the calibration itself says of a search
        calibration = json.loads(gallery.metadata["score_calibration"])
        count = calibration["at_least"][round(wanted * 1000) - 300]
        assert 235 * count / pairs <= 0.02


def test_a_calibration_that_cannot_show_so_few_is_used_and_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibrate(file, 300, [1000, 100, 0], 235 * 50)
    with EmbeddingFile(file) as gallery:
        assert default_threshold(gallery) == pytest.approx(0.302)
    assert_names(caplog.text, 0.02, 235, 0.302)


def test_without_a_calibration_the_ways_are_named(file: Path) -> None:
    with EmbeddingFile(file) as gallery, pytest.raises(ConfigError) as error:
        default_threshold(gallery)
    for way in ("--threshold", "-k", "facemill evaluate FOLDER --calibrate"):
        assert way in str(error.value)
