"""Find all pairs above a threshold; the oracle is NumPy in double precision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.errors import (
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutOfMemoryError,
    StorageError,
    TooManyPairsError,
)
from runtime.index.flat import FlatIndex
from runtime.index.gpu import count_gpus
from runtime.pairs.all_pairs import ScoredPairs, join_pairs, pairs_above
from runtime.pairs.tiles import TileProducts, Tiling, open_tile_products
from runtime.storage.file import EmbeddingFile
from tests.support.duplicate_people import Pair, pairs_by_numpy, rows_with_duplicates, scores_by_numpy, write_rows
from tests.support.errors import raises


def sorted_pairs(scored: ScoredPairs) -> list[Pair]:
    pairs = zip(scored.first.tolist(), scored.second.tolist(), scored.scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def find_pairs(path: Path, threshold: float, tile_rows: int = 100, **options: Any) -> list[Pair]:
    with EmbeddingFile(path) as gallery:
        tiling = Tiling(gallery.rows, tile_rows)
        return sorted_pairs(join_pairs(list(pairs_above(gallery, threshold, tiling=tiling, **options))))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rows", [1, 2, 99, 100, 101, 777])
def test_pairs_equal_those_of_numpy(tmp_path: Path, rows: int, dtype: type) -> None:
    vectors = rows_with_duplicates(max(rows, 60))[:rows].astype(dtype)
    path = write_rows(tmp_path / "p.h5", vectors)
    for threshold in (0.4, 0.8):
        expected = pairs_by_numpy(vectors, threshold)
        assert find_pairs(path, threshold) == expected
        assert len(expected) > 0 or rows < 99


@pytest.mark.parametrize("shape", [(7, 5), (5, 300), (64, 64), (1024, 2048)])
def test_the_size_of_a_product_does_not_change_the_pairs(tmp_path: Path, shape: tuple[int, int]) -> None:
    vectors = rows_with_duplicates(333)
    path = write_rows(tmp_path / "p.h5", vectors)
    assert find_pairs(path, 0.3, 90, products=TileProducts(shape=shape)) == pairs_by_numpy(vectors, 0.3)
    assert find_pairs(path, 0.3, 1000, products=TileProducts(shape=shape)) == pairs_by_numpy(vectors, 0.3)


@pytest.mark.slow
def test_a_threshold_is_exact_to_the_last_bit(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    scores = np.unique([score for _, _, score in pairs_by_numpy(vectors, 0.3)]).astype(np.float32)
    assert len(scores) > 50
    for score in scores[::12]:
        above = np.nextafter(score, np.float32(2))
        at, over = find_pairs(path, float(score)), find_pairs(path, float(above))
        assert at == pairs_by_numpy(vectors, float(score))
        assert over == pairs_by_numpy(vectors, float(above))
        assert len(at) > len(over)


@pytest.mark.slow
def test_fp32_rounding_errors_lose_no_pair(tmp_path: Path) -> None:
    """FP32 sums differ between machines; here each is too low by almost the largest permitted error."""
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)

    class LowProducts:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def matmul(self, left: Any, right: Any, out: Any) -> None:
            out[:] = left.astype(np.float64) @ right - 1.9e-6  # 35 roundings of 2**-24

        def asnumpy(self, array: Any) -> Any:
            return array

    for _, _, score in pairs_by_numpy(vectors, 0.4)[::7]:
        assert find_pairs(path, score, products=TileProducts(LowProducts())) == pairs_by_numpy(vectors, score)  # type: ignore[arg-type]


def test_equal_rows_have_equal_scores_at_any_position(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(250)
    vectors[np.random.default_rng(1).permutation(250)[:40]] = vectors[np.flatnonzero(vectors.any(axis=1))[0]]
    pairs = find_pairs(write_rows(tmp_path / "p.h5", vectors), 0.99, 60)
    assert pairs == pairs_by_numpy(vectors, 0.99)
    assert len(pairs) >= 40 * 39 // 2
    assert len({score for *_, score in pairs[:780]}) == 1


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_zero_rows_are_in_no_pair_at_any_threshold(tmp_path: Path, threshold: float) -> None:
    vectors = rows_with_duplicates(70)
    zero_rows = np.flatnonzero(~vectors.any(axis=1))
    pairs = find_pairs(write_rows(tmp_path / "p.h5", vectors), threshold, 30)
    assert pairs == pairs_by_numpy(vectors, threshold)
    assert not {row for first, second, _ in pairs for row in (first, second)} & set(zero_rows.tolist())
    if threshold == -1.0:
        assert len(pairs) == 67 * 66 // 2


@pytest.mark.slow
def test_scores_equal_those_of_a_search(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(200)
    path = write_rows(tmp_path / "p.h5", vectors)
    with EmbeddingFile(path) as gallery, FlatIndex(gallery) as index:
        rows, scores = index.search(vectors, 200)
    searched = {(i, int(j)): float(s) for i in range(200) for j, s in zip(rows[i], scores[i], strict=True)}
    for first, second, score in find_pairs(path, 0.4):
        assert searched[first, second] == searched[second, first] == score == scores_by_numpy(vectors)[first, second]


def test_pairs_come_per_block_and_can_start_at_any_block(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(250))
    with EmbeddingFile(path) as gallery:
        tiling = Tiling(250, 100)
        items = list(pairs_above(gallery, 0.4, tiling=tiling))
        assert tiling.blocks() == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        assert len(items) == 6
        for start in range(7):
            later = list(pairs_above(gallery, 0.4, tiling=tiling, start=start))
            assert [sorted_pairs(item) for item in later] == [sorted_pairs(item) for item in items[start:]]


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250])
def test_blocks_cover_every_pair_once(rows: int) -> None:
    tiling = Tiling(rows, 100)
    assert sum(map(tiling.pairs, tiling.blocks())) == rows * (rows - 1) // 2


def test_an_empty_file_has_no_pairs(tmp_path: Path) -> None:
    assert find_pairs(write_rows(tmp_path / "p.h5", np.empty((0, 8), np.float32)), 0.1) == []


def test_too_many_pairs_are_refused(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    expected = pairs_by_numpy(vectors, 0.1)
    assert find_pairs(path, 0.1, 300, max_pairs=len(expected)) == expected
    with raises(TooManyPairsError):
        find_pairs(path, 0.1, 300, max_pairs=len(expected) - 1)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_must_be_finite(tmp_path: Path, threshold: float) -> None:
    with raises(ConfigError, threshold):
        find_pairs(write_rows(tmp_path / "p.h5", rows_with_duplicates(60)), threshold)


def test_a_row_longer_than_1_is_refused(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(150)
    vectors[120] *= 1.2
    with raises(StorageError, "row 120"):
        find_pairs(write_rows(tmp_path / "p.h5", vectors), 0.4)


def test_the_gpu_code_finds_the_same_pairs(tmp_path: Path) -> None:
    """CuPy has NumPy's functions and `asnumpy`, which downloads an array; NumPy stands in for it here."""
    downloaded_sizes: list[int] = []

    def asnumpy(array: Any) -> Any:
        downloaded_sizes.append(len(array))
        return array.copy()

    names = ("asarray", "empty", "matmul", "flatnonzero")
    cupy: Any = SimpleNamespace(**{name: getattr(np, name) for name in names}, asnumpy=asnumpy)
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    assert find_pairs(path, 0.4, products=TileProducts(cupy, (128, 128))) == pairs_by_numpy(vectors, 0.4)
    assert sum(downloaded_sizes) >= len(pairs_by_numpy(vectors, 0.4))


def test_without_a_gpu_auto_uses_the_cpu_and_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pairs.tiles.count_gpus", lambda: 0)
    assert isinstance(open_tile_products("auto"), TileProducts)
    if count_gpus():
        pytest.skip("there is a GPU")
    with raises((EngineError, MissingDependencyError), "--device cpu"):
        open_tile_products("gpu")


@pytest.mark.parametrize(
    ("error", "expected_type"), [(RuntimeError("cudaErrorX"), EngineError), (MemoryError("64 GB"), OutOfMemoryError)]
)
def test_gpu_errors_are_converted(tmp_path: Path, error: Exception, expected_type: type[Exception]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    cupy: Any = SimpleNamespace(empty=np.empty, asarray=np.asarray, matmul=refuse)
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(60))
    with raises(expected_type, "CuPy", error, "--device cpu"):
        find_pairs(path, 0.4, products=TileProducts(cupy))
