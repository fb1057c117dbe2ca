"""Colours of the map: the clusters in the file, the folders that evaluate uses, or clusters of the points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.clusters.clusters import number_clusters
from runtime.clusters.outputs import write_column
from runtime.pages.map import (
    estimate_threshold,
    group_rows,
    groups_of_column,
    groups_of_folders,
    groups_of_vectors,
)
from runtime.pages.map_page import Groups
from runtime.storage.file import EmbeddingFile
from tests.support.duplicate_people import calibration_of, write_rows
from tests.support.extras import require_package

require_package("scipy", "map")


def crowd(dimension: int = 40) -> NDArray[np.float32]:
    """(20, D) float32, unit rows: three people with 3, 5 and 7 shots, then five with one."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((8, dimension)), [3, 5, 7, 1, 1, 1, 1, 1], axis=0)
    vectors = centres + 0.01 * rng.standard_normal(centres.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def group_by_cluster(vectors: NDArray[np.float32]) -> Groups:
    return groups_of_vectors(vectors, estimate_threshold(vectors, 0), "for the test", 0)


def test_folders_below_the_root_are_sorted_by_size() -> None:
    groups = groups_of_folders(["b/1.jpg", "b/deep/2.jpg", "a/1.jpg", "top.jpg", "c/1.jpg"])
    assert groups.kind == "folder"
    assert groups.names == ("b", "a", "c")
    assert groups.labels.tolist() == [0, 0, 1, -1, 2]
    assert groups.sizes.tolist() == [2, 1, 1]


def test_photos_without_a_folder_have_no_group() -> None:
    groups = groups_of_folders(["a.jpg", "b.jpg"])
    assert groups.names == ()
    assert groups.labels.tolist() == [-1, -1]
    assert groups.sizes.tolist() == []


def test_clusters_are_people_sorted_by_size() -> None:
    groups = group_by_cluster(crowd())
    assert groups.names == ("cluster 1", "cluster 2", "cluster 3")
    assert groups.labels.tolist() == [2] * 3 + [1] * 5 + [0] * 7 + [-1] * 5
    assert groups.sizes.tolist() == [7, 5, 3]


def test_links_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pages.map._BLOCK_ROWS", 4)
    assert group_by_cluster(crowd()).labels.tolist() == [2] * 3 + [1] * 5 + [0] * 7 + [-1] * 5


def test_faces_without_a_cluster_are_accepted() -> None:
    assert group_by_cluster(crowd()[[0, 3, 8]]).labels.tolist() == [-1, -1, -1]
    assert group_by_cluster(np.zeros((5, 40), np.float32)).names == ()


def test_cluster_numbers_of_the_file_are_kept() -> None:
    groups = groups_of_column(np.array([4, 0, 2, 4, 9, 4, 2], np.int64))
    assert groups.names == ("cluster 4", "cluster 2", "cluster 9")
    assert groups.labels.tolist() == [0, -1, 1, 0, 2, 0, 1]
    assert groups_of_column(np.zeros(3, np.int64)).names == ()
    assert groups_of_column(np.array([3, 3], np.int64)).labels.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [128, 512])
def test_the_estimated_threshold_separates_strangers_and_keeps_people(dimension: int) -> None:
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(300), 4)
    vectors = rng.standard_normal((300, dimension))[people] + 0.8 * rng.standard_normal((1200, dimension))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    threshold = estimate_threshold(vectors, 0)
    scores = vectors @ vectors.T
    strangers = people[:, None] != people
    assert (scores[strangers] >= threshold).sum() / len(people) < 0.05  # per face; 0.02 were requested
    assert (scores[~strangers] >= threshold).mean() > 0.95


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "people.h5", crowd(), names=[b"%d/%d.jpg" % (i % 2, i) for i in range(20)])


def group(file: Path, color: str, paths: list[str]) -> Groups:
    with EmbeddingFile(file) as gallery:
        rows = np.arange(len(paths))
        return group_rows(gallery, rows, paths, crowd()[rows], color, 0)


def test_auto_selects_informative_folders(file: Path) -> None:
    two = [f"{i % 2}/{i}.jpg" for i in range(20)]
    assert group(file, "auto", two).kind == "folder"
    assert group(file, "cluster", two).kind == "cluster"
    for paths in (["one/a.jpg"] * 20, ["a.jpg"] * 20):
        assert group(file, "auto", paths).kind == "cluster"
        assert group(file, "folder", paths).kind == "folder"


@pytest.mark.parametrize(("folders", "kind"), [(50, "folder"), (51, "cluster")])
def test_auto_selects_folders_up_to_the_number_of_colours(file: Path, folders: int, kind: str) -> None:
    paths = [f"{i}/a.jpg" for i in range(folders)]
    vectors = np.eye(folders, dtype=np.float32)
    with EmbeddingFile(file) as gallery:
        assert group_rows(gallery, np.arange(folders), paths, vectors, "auto", 0).kind == kind


def test_auto_and_cluster_use_the_clusters_in_the_file(file: Path) -> None:
    clusters = number_clusters(np.repeat([5, 6, 7], [2, 8, 10]), np.ones(20, np.float32), method="k-means", k=3)
    with EmbeddingFile(file) as gallery:
        run_id = str(gallery.metadata["run_id"])
    write_column(file, clusters, run_id)
    two = [f"{i % 2}/{i}.jpg" for i in range(20)]
    for color in ("auto", "cluster"):
        groups = group(file, color, two)
        assert groups.names == ("cluster 1", "cluster 2", "cluster 3")
        assert groups.labels.tolist() == [2] * 2 + [1] * 8 + [0] * 10
        assert "facemill cluster" in groups.origin
    assert group(file, "folder", two).kind == "folder"


def test_the_threshold_comes_from_the_calibration(tmp_path: Path) -> None:
    calibration = calibration_of(np.random.default_rng(0).normal(0, 0.1, 100_000).clip(-1, 1))
    file = write_rows(tmp_path / "people.h5", crowd(), calibration=calibration)
    groups = group(file, "cluster", ["a.jpg"] * 20)
    lowest = calibration.lowest(0.02, 20)
    assert f"threshold {lowest:.3f} from the calibration" in groups.origin
    assert groups.labels.tolist() == [2] * 3 + [1] * 5 + [0] * 7 + [-1] * 5
