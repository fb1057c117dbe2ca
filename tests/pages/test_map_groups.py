"""Colours: folders as evaluate knows them, clusters that are people, the largest first."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pages.map_groups import by_cluster, by_folder, group

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[map]'")


def crowd() -> NDArray[np.float32]:
    """(20, 16) float32, unit rows: three people with 3, 5 and 7 shots, then five with one."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((8, 16)), [3, 5, 7, 1, 1, 1, 1, 1], axis=0)
    vectors = centres + 0.01 * rng.standard_normal(centres.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_folders_are_those_below_the_root_the_largest_first() -> None:
    groups = by_folder(["b/1.jpg", "b/deep/2.jpg", "a/1.jpg", "top.jpg", "c/1.jpg"])
    assert groups.kind == "folder"
    assert groups.names == ("b", "a", "c")
    assert groups.of.tolist() == [0, 0, 1, -1, 2]
    assert groups.sizes.tolist() == [2, 1, 1]


def test_no_folder_is_no_group() -> None:
    groups = by_folder(["a.jpg", "b.jpg"])
    assert groups.names == ()
    assert groups.of.tolist() == [-1, -1]
    assert groups.sizes.tolist() == []


def test_clusters_are_people_the_largest_first() -> None:
    groups = by_cluster(crowd())
    assert groups.names == ("cluster 1", "cluster 2", "cluster 3")
    assert groups.of[:15].tolist() == [2] * 3 + [1] * 5 + [0] * 7  # of the five others, some join whom they are nearest
    assert groups.sizes.tolist() == np.bincount(groups.of[groups.of >= 0]).tolist() == sorted(groups.sizes)[::-1]


def test_faces_without_a_cluster_are_no_error() -> None:
    assert by_cluster(crowd()[[0, 3, 8]]).of.tolist() == [-1, -1, -1]
    assert by_cluster(np.zeros((5, 16), np.float32)).names == ()


def test_auto_takes_folders_where_they_tell_something() -> None:
    vectors = crowd()
    two = [f"{i % 2}/{i}.jpg" for i in range(20)]
    assert group("auto", two, vectors).kind == "folder"
    assert group("cluster", two, vectors).kind == "cluster"
    for paths in (["one/a.jpg"] * 20, ["a.jpg"] * 20):
        assert group("auto", paths, vectors).kind == "cluster"
        assert group("folder", paths, vectors).kind == "folder"
    for folders, kind in ((50, "folder"), (51, "cluster")):
        assert group("auto", [f"{i}/a.jpg" for i in range(folders)], np.eye(folders, dtype=np.float32)).kind == kind
