"""How the codes are made: which directions are kept, how large the training is, how hard an index can look."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.index.kinds import efforts, sample_size, train
from runtime.index.sizes import APPROXIMATE
from tests.index.test_approximate import crowd


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


def test_sizes() -> None:
    assert sample_size(300) == 300
    assert sample_size(100_000) == 32_768
    assert sample_size(1_000_000) == 65_536
    assert sample_size(5_000_000) == 131_072
    lists = train("ivf", crowd(2000), 1_000_000)[1]["lists"]
    assert lists == 1024


def test_efforts_ascend_to_the_whole() -> None:
    assert efforts("ivf", {"lists": 64}, 1000) == [4, 8, 16, 32, 48, 64]
    assert efforts("ivf", {"lists": 1}, 1000) == [1]
    assert efforts("hnsw", {}, 3200) == [100, 200, 400, 800, 1600, 3200]
    assert efforts("hnsw", {}, 3) == [1, 3]
    assert efforts("sq8", {}, 3200) == [0]
