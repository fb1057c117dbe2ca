"""The kinds of index: sizes against what FAISS writes, which directions are kept, how an index is searched."""

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
def test_directions_that_carry_nothing_are_left_out(kind: str) -> None:
    flat = np.zeros((500, 64), np.float32)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0][:20]
    flat[:] = np.random.default_rng(1).standard_normal((500, 20)) @ turn
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    index, parameters = train(kind, flat, 500)
    assert parameters["dimensions"] == 24  # 20 carry something; a multiple of 8
    kept = index.chain.at(0).apply(flat)
    np.testing.assert_allclose(kept @ kept.T, flat @ flat.T, atol=1e-5)  # the inner product survives


def test_no_direction_is_weaker_than_the_others_by_much() -> None:
    """Codes of so many bits a direction are best when all matter alike: the rows are turned."""
    index, parameters = train("sq8", crowd(2000), 2000)
    kept = index.chain.at(0).apply(crowd(2000))
    before, after = crowd(2000).std(axis=0)[:35], kept.std(axis=0)
    assert parameters["dimensions"] == 40
    assert before.max() / before.min() > 4
    assert after.max() / after.min() < 3


def test_sizes_of_the_training() -> None:
    assert sample_size(300) == 300
    assert sample_size(100_000) == 32_768
    assert sample_size(1_000_000) == 65_536
    assert sample_size(5_000_000) == 131_072
    lists = train("ivf", crowd(2000), 1_000_000)[1]["lists"]
    assert lists == 1024


def test_efforts_ascend_to_the_whole() -> None:
    assert efforts("ivf", {"lists": 64}) == [4, 8, 16, 32, 48, 64]
    assert efforts("ivf", {"lists": 1}) == [1]
    assert efforts("sq8", {}) == [0]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_search_with_an_effort_leaves_the_index_as_it_was(kind: str) -> None:
    """FAISS answers as if the effort were set in the index: it comes with the search, so that others do not see it."""
    rows = crowd(2000)
    index, parameters = train(kind, rows, 2000)
    index.add(rows)
    codes = faiss.downcast_index(index.index)
    for effort in efforts(kind, parameters):
        found = index.search(rows[:40], 30, params=search_parameters(kind, effort))[1]
        if kind == "ivf":
            assert codes.nprobe == 1  # FAISS's default
            codes.nprobe = effort
        np.testing.assert_array_equal(found, index.search(rows[:40], 30)[1])
        if kind == "ivf":
            codes.nprobe = 1


@pytest.mark.parametrize(("rows", "dimension"), [(2000, 64), (5000, 32)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_faiss_writes_is_as_large(kind: str, rows: int, dimension: int) -> None:
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


def test_exact_figures() -> None:
    assert index_bytes("flat", 5_000_000, 512) == 10_240_000_000
    assert index_bytes("sq8", 5_000_000, 512) == 2_560_004_096
    assert index_bytes("ivf", 5_000_000, 512) == 5_000_000 * 264 + 2048 * 16 * 256 + 4 * 2048 * 512 + 64 * 512
    assert [list_count(rows) for rows in (0, 1, 10_000, 5_000_000, 10**9)] == [1, 1, 128, 2048, 4096]
    assert [index_bytes(kind, 0, 8) for kind in ("flat", "sq8")] == [0, 64]
    with raises(ConfigError, "pq", "flat", "ivf", "sq8"):
        index_bytes("pq", 1, 1)


def test_how_long_it_takes_to_make_one() -> None:
    speed = {"flops": 150e9, "write_bytes_s": 200e6}
    found = {kind: build_s(kind, 1_000_000, 512, **speed) for kind in KINDS}
    assert found["flat"] == pytest.approx(10.24)
    assert found["sq8"] == pytest.approx(2 * 1e6 * 512 * 512 / 150e9)
    assert found["ivf"] == pytest.approx(2 * (1e6 * (512 + 1024) + 131_072 * 1024 * 10) * 512 / 150e9)
    assert found["ivf"] > found["sq8"]
    assert build_s("ivf", 0, 512, **speed) == build_s("sq8", 0, 512, **speed) == 0
    assert build_s("ivf", 5_000_000, 512, **speed) < 25 * 60
