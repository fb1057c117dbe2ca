"""The formulas against what FAISS writes."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from runtime.index.sizes import KINDS, LINKS, build_s, index_bytes, list_count

from runtime.errors import ConfigError
from tests.support.errors import raises


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
    elif kind == "ivf":
        lists = list_count(rows)
        index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dimension), dimension, lists, dimension, 4, product)
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    else:
        index = faiss.IndexHNSWSQ(dimension, bits, LINKS, product)
    index.train(vectors)
    index.add(vectors)
    written = len(faiss.serialize_index(index))
    assert index_bytes(kind, rows, dimension) == pytest.approx(written, rel=0.03)


def test_exact_figures() -> None:
    assert index_bytes("flat", 5_000_000, 512) == 10_240_000_000
    assert index_bytes("sq8", 5_000_000, 512) == 2_560_004_096
    assert index_bytes("ivf", 5_000_000, 512) == 5_000_000 * 264 + 2048 * 16 * 256 + 4 * 2048 * 512 + 64 * 512
    assert [list_count(rows) for rows in (0, 1, 10_000, 5_000_000, 10**9)] == [1, 1, 128, 2048, 4096]
    assert [index_bytes(kind, 0, 8) for kind in ("flat", "sq8", "hnsw")] == [0, 64, 64]
    with raises(ConfigError, "pq", "flat", "ivf", "sq8", "hnsw"):
        index_bytes("pq", 1, 1)


def test_how_long_it_takes_to_make_one() -> None:
    speed = {"flops": 150e9, "write_bytes_s": 200e6}
    found = {kind: build_s(kind, 1_000_000, 512, **speed) for kind in KINDS}
    assert found["flat"] == pytest.approx(10.24)
    assert found["sq8"] == pytest.approx(2 * 1e6 * 512 * 512 / 150e9)
    assert found["ivf"] == pytest.approx(2 * (1e6 * (512 + 1024) + 131_072 * 1024 * 10) * 512 / 150e9)
    assert found["hnsw"] > found["ivf"] > found["sq8"]
    assert build_s("ivf", 0, 512, **speed) == build_s("sq8", 0, 512, **speed) == 0
    assert build_s("ivf", 5_000_000, 512, **speed) < 25 * 60
