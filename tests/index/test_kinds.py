"""The kinds of index: sizes compared with FAISS files, projected directions, and search parameters."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from runtime.errors import ConfigError
from runtime.index.kinds import (
    APPROXIMATE,
    KINDS,
    build_s,
    efforts,
    index_bytes,
    list_count,
    sample_size,
    search_parameters,
    train,
)
from tests.index.test_approximate import crowd
from tests.support.errors import raises


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_empty_directions_are_dropped(kind: str) -> None:
    flat = np.zeros((500, 64), np.float32)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0][:20]
    flat[:] = np.random.default_rng(1).standard_normal((500, 20)) @ turn
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    index, parameters = train(kind, flat, 500)
    assert parameters["dimensions"] == 24  # 20 directions are not empty; rounded up to a multiple of 8
    projected = index.chain.at(0).apply(flat)
    np.testing.assert_allclose(projected @ projected.T, flat @ flat.T, atol=1e-5)  # the inner product survives


def test_projected_directions_have_similar_strength() -> None:
    """Codes with equal bits per direction work best when all directions matter equally, so the rows are rotated."""
    index, parameters = train("sq8", crowd(2000), 2000)
    projected = index.chain.at(0).apply(crowd(2000))
    before, after = crowd(2000).std(axis=0)[:35], projected.std(axis=0)
    assert parameters["dimensions"] == 40
    assert before.max() / before.min() > 4
    assert after.max() / after.min() < 3


@pytest.mark.slow
def test_training_sizes() -> None:
    assert sample_size(300) == 300
    assert sample_size(100_000) == 32_768
    assert sample_size(1_000_000) == 65_536
    assert sample_size(5_000_000) == 131_072
    lists = train("ivf", crowd(2000), 1_000_000)[1]["lists"]
    assert lists == 1024


def test_efforts_ascend_to_all_lists() -> None:
    assert efforts("ivf", {"lists": 64}) == [4, 8, 16, 32, 48, 64]
    assert efforts("ivf", {"lists": 1}) == [1]
    assert efforts("sq8", {}) == [0]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_search_with_an_effort_does_not_change_the_index(kind: str) -> None:
    """The effort is an argument of the search, so that concurrent searches do not see it."""
    rows = crowd(2000)
    index, parameters = train(kind, rows, 2000)
    index.add(rows)
    codes = faiss.downcast_index(index.index)
    for effort in efforts(kind, parameters):
        rows_found = index.search(rows[:40], 30, params=search_parameters(kind, effort))[1]
        if kind == "ivf":
            assert codes.nprobe == 1  # FAISS's default
            codes.nprobe = effort
        np.testing.assert_array_equal(rows_found, index.search(rows[:40], 30)[1])
        if kind == "ivf":
            codes.nprobe = 1


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "dimension"), [(2000, 64), (5000, 32)])
@pytest.mark.parametrize("kind", KINDS)
def test_estimated_sizes_equal_those_of_faiss_files(kind: str, rows: int, dimension: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((rows, dimension), np.float32)
    faiss.normalize_L2(vectors)
    bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    elif kind == "sq8":
        index = faiss.IndexScalarQuantizer(dimension, bits, product)
    else:
        lists = list_count(rows)
        index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dimension), dimension, lists, dimension, 4, product)
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    written = len(faiss.serialize_index(index))
    assert index_bytes(kind, rows, dimension) == pytest.approx(written, rel=0.03)


def test_figures_of_exact_search() -> None:
    assert index_bytes("flat", 5_000_000, 512) == 10_240_000_000
    assert index_bytes("sq8", 5_000_000, 512) == 2_560_004_096
    assert index_bytes("ivf", 5_000_000, 512) == 5_000_000 * 264 + 2048 * 16 * 256 + 4 * 2048 * 512 + 64 * 512
    assert [list_count(rows) for rows in (0, 1, 10_000, 5_000_000, 10**9)] == [1, 1, 128, 2048, 4096]
    assert [index_bytes(kind, 0, 8) for kind in ("flat", "sq8")] == [0, 64]
    with raises(ConfigError, "pq", "flat", "ivf", "sq8"):
        index_bytes("pq", 1, 1)


def test_build_time_estimates() -> None:
    speed = {"flops": 150e9, "write_bytes_s": 200e6}
    times_s = {kind: build_s(kind, 1_000_000, 512, **speed) for kind in KINDS}
    assert times_s["flat"] == pytest.approx(10.24)
    assert times_s["sq8"] == pytest.approx(2 * 1e6 * 512 * 512 / 150e9)
    assert times_s["ivf"] == pytest.approx(2 * (1e6 * (512 + 1024) + 131_072 * 1024 * 10) * 512 / 150e9)
    assert times_s["ivf"] > times_s["sq8"]
    assert build_s("ivf", 0, 512, **speed) == build_s("sq8", 0, 512, **speed) == 0
    assert build_s("ivf", 5_000_000, 512, **speed) < 25 * 60
