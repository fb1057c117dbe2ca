"""The projection samples rows, keeps neighbours together, and gives the same map for the same seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import MissingDependencyError
from runtime.pages.map_projection import MIN_ROWS, project, sample_rows
from tests.support.errors import raises
from tests.support.extras import require_package

require_package("sklearn", "map")
PEOPLE, SHOTS = 8, 12


def people(seed: int = 0, spread: float = 0.05) -> NDArray[np.float32]:
    """(96, 32) float32, unit rows: 8 people far from each other, 12 shots each."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((PEOPLE, 32)), SHOTS, axis=0)
    vectors = centres + spread * rng.standard_normal(centres.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.slow
def test_neighbours_belong_to_one_person() -> None:
    places = project(people(), seed=0)
    assert places.shape == (PEOPLE * SHOTS, 2)
    assert places.dtype == np.float32
    person = np.repeat(np.arange(PEOPLE), SHOTS)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, : SHOTS - 1]
    assert (person[nearest] == person[:, None]).mean() > 0.99


@pytest.mark.slow
def test_the_same_seed_gives_the_same_map() -> None:
    np.testing.assert_array_equal(project(people(), seed=3), project(people(), seed=3))
    assert not np.array_equal(project(people(), seed=3), project(people(), seed=4))


@pytest.mark.parametrize("count", [MIN_ROWS, 4, 7])
def test_a_few_points_have_positions(count: int) -> None:
    assert np.isfinite(project(people()[:count], seed=0)).all()


def test_equal_embeddings_are_drawn_apart() -> None:
    places = project(np.repeat(people()[:1], 20, axis=0), seed=0)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == 20


@pytest.mark.slow
def test_a_zero_row_has_a_position() -> None:
    vectors = people()
    vectors[5] = 0
    assert np.isfinite(project(vectors, seed=0)).all()


def test_rows_are_sampled_evenly_with_the_seed() -> None:
    np.testing.assert_array_equal(sample_rows(10, 10, 0), np.arange(10))
    np.testing.assert_array_equal(sample_rows(3, 10, 0), np.arange(3))
    rows = sample_rows(1007, 100, 1)
    edges = np.arange(101) * 1007 // 100
    assert ((edges[:-1] <= rows) & (rows < edges[1:])).all()
    np.testing.assert_array_equal(rows, sample_rows(1007, 100, 1))
    assert not np.array_equal(rows, sample_rows(1007, 100, 2))
    assert sample_rows(1_000_000_007, 5000, 0)[-1] > 999_000_000


def test_without_scikit_learn_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with raises(MissingDependencyError, "t-SNE", "pip install plotly scikit-learn"):
        project(people(), seed=0)
