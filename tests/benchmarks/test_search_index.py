"""The generated nation matches its description, and the benchmark's oracle is correct."""

from __future__ import annotations

from pathlib import Path

import nation
import numpy as np
import pytest
import search_index

from runtime.storage.file import EmbeddingFile


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nation") / "nation.h5"
    nation.write_nation(path, nation.BLOCK + 100, 512, seed=3)
    return path


@pytest.mark.slow
def test_the_nation_opens_as_a_gallery_and_is_reproducible(people: Path) -> None:
    with EmbeddingFile(people) as gallery:
        assert (gallery.rows, gallery.dimension) == (nation.BLOCK + 100, 512)
        rows = np.concatenate(list(gallery.blocks()))
        assert gallery.names([0, nation.BLOCK + 99]) == ["photograph-00000000.jpg", "photograph-00032867.jpg"]
    np.testing.assert_array_equal(rows[: nation.BLOCK], nation.make_block(0, 512, 3))
    np.testing.assert_array_equal(rows[nation.BLOCK :], nation.make_block(1, 512, 3)[:100])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_the_nation_is_spread_like_real_embeddings(people: Path) -> None:
    with EmbeddingFile(people) as gallery:
        rows = next(gallery.blocks())
    weights = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))[::-1]
    shares = weights.cumsum() / weights.sum()
    # Measured on LFW: 0.28, 0.72 and 0.975.
    assert np.abs(shares[[15, 63, 127]] - [0.28, 0.72, 0.975]).max() < 0.03
    scores = rows[:2000] @ rows.T
    scores[np.arange(2000), np.arange(2000)] = 0
    assert abs(scores.std() - 0.101) < 0.01
    best = scores.max(axis=1)
    assert 0.55 < np.median(best) < 0.75  # most people have a second photo


@pytest.mark.slow
def test_the_oracle_and_the_queries(people: Path) -> None:
    queries = search_index.make_queries(people, 3)
    assert queries.shape == (200, 512)
    with EmbeddingFile(people) as gallery:
        rows = np.concatenate(list(gallery.blocks())).astype(np.float64)
    scores = np.sort(queries.astype(np.float64) @ rows.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(search_index.numpy_floors(people, queries, 7), scores[:, 6], atol=1e-12)
    assert scores[:100, 0].min() > 0.4  # people in the file
    assert np.median(scores[100:, 0]) < 0.5  # strangers
