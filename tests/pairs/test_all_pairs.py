"""All pairs above a threshold, against all scores in double precision."""

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


def listed(found: ScoredPairs) -> list[Pair]:
    pairs = zip(found.first.tolist(), found.second.tolist(), found.scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def pairs_of(path: Path, threshold: float, tile_rows: int = 100, **options: Any) -> list[Pair]:
    with EmbeddingFile(path) as gallery:
        tiling = Tiling(gallery.rows, tile_rows)
        return listed(join_pairs(list(pairs_above(gallery, threshold, tiling=tiling, **options))))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rows", [1, 2, 99, 100, 101, 777])
def test_pairs_are_those_of_numpy(tmp_path: Path, rows: int, dtype: type) -> None:
    vectors = rows_with_duplicates(max(rows, 60))[:rows].astype(dtype)
    path = write_rows(tmp_path / "p.h5", vectors)
    for threshold in (0.4, 0.8):
        wanted = pairs_by_numpy(vectors, threshold)
        assert pairs_of(path, threshold) == wanted
        assert len(wanted) > 0 or rows < 99


@pytest.mark.parametrize("shape", [(7, 5), (5, 300), (64, 64), (1024, 2048)])
def test_the_size_of_a_product_changes_nothing(tmp_path: Path, shape: tuple[int, int]) -> None:
    vectors = rows_with_duplicates(333)
    path = write_rows(tmp_path / "p.h5", vectors)
    assert pairs_of(path, 0.3, 90, products=TileProducts(shape=shape)) == pairs_by_numpy(vectors, 0.3)
    assert pairs_of(path, 0.3, 1000, products=TileProducts(shape=shape)) == pairs_by_numpy(vectors, 0.3)


def test_a_threshold_is_met_to_the_last_bit(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    scores = np.unique([score for _, _, score in pairs_by_numpy(vectors, 0.3)]).astype(np.float32)
    assert len(scores) > 50
    for score in scores[::12]:
        above = np.nextafter(score, np.float32(2))
        at, over = pairs_of(path, float(score)), pairs_of(path, float(above))
        assert at == pairs_by_numpy(vectors, float(score))
        assert over == pairs_by_numpy(vectors, float(above))
        assert len(at) > len(over)


def test_products_that_are_wrong_by_what_fp32_may_be_lose_no_pair(tmp_path: Path) -> None:
    """Sums in FP32 come out differently on every machine: here, always too low by nearly all that is allowed."""
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)

    class Low:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def matmul(self, left: Any, right: Any, out: Any) -> None:
            out[:] = left.astype(np.float64) @ right - 1.9e-6  # 35 roundings of 2**-24

        def asnumpy(self, found: Any) -> Any:
            return found

    for _, _, score in pairs_by_numpy(vectors, 0.4)[::7]:
        assert pairs_of(path, score, products=TileProducts(Low())) == pairs_by_numpy(vectors, score)  # type: ignore[arg-type]


def test_equal_rows_score_equally_wherever_they_lie(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(250)
    vectors[np.random.default_rng(1).permutation(250)[:40]] = vectors[np.flatnonzero(vectors.any(axis=1))[0]]
    found = pairs_of(write_rows(tmp_path / "p.h5", vectors), 0.99, 60)
    assert found == pairs_by_numpy(vectors, 0.99)
    assert len(found) >= 40 * 39 // 2
    assert len({score for *_, score in found[:780]}) == 1


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_zeros_pair_with_nobody_however_low_the_threshold(tmp_path: Path, threshold: float) -> None:
    vectors = rows_with_duplicates(70)
    zeros = np.flatnonzero(~vectors.any(axis=1))
    found = pairs_of(write_rows(tmp_path / "p.h5", vectors), threshold, 30)
    assert found == pairs_by_numpy(vectors, threshold)
    assert not {row for first, second, _ in found for row in (first, second)} & set(zeros.tolist())
    if threshold == -1.0:
        assert len(found) == 67 * 66 // 2


def test_scores_are_those_of_a_search(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(200)
    path = write_rows(tmp_path / "p.h5", vectors)
    with EmbeddingFile(path) as gallery, FlatIndex(gallery) as index:
        rows, scores = index.search(vectors, 200)
    searched = {(i, int(j)): float(s) for i in range(200) for j, s in zip(rows[i], scores[i], strict=True)}
    for first, second, score in pairs_of(path, 0.4):
        assert searched[first, second] == searched[second, first] == score == scores_by_numpy(vectors)[first, second]


def test_each_block_is_an_item_and_the_first_ones_can_be_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(250))
    with EmbeddingFile(path) as gallery:
        tiling = Tiling(250, 100)
        items = list(pairs_above(gallery, 0.4, tiling=tiling))
        assert tiling.blocks() == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        assert len(items) == 6
        for start in range(7):
            later = list(pairs_above(gallery, 0.4, tiling=tiling, start=start))
            assert [listed(item) for item in later] == [listed(item) for item in items[start:]]


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250])
def test_blocks_hold_every_pair_once(rows: int) -> None:
    tiling = Tiling(rows, 100)
    assert sum(map(tiling.pairs, tiling.blocks())) == rows * (rows - 1) // 2


def test_an_empty_file_has_no_pairs(tmp_path: Path) -> None:
    assert pairs_of(write_rows(tmp_path / "p.h5", np.empty((0, 8), np.float32)), 0.1) == []


def test_too_many_pairs_stop_it(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    wanted = pairs_by_numpy(vectors, 0.1)
    assert pairs_of(path, 0.1, 300, max_pairs=len(wanted)) == wanted
    with raises(TooManyPairsError):
        pairs_of(path, 0.1, 300, max_pairs=len(wanted) - 1)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_number(tmp_path: Path, threshold: float) -> None:
    with raises(ConfigError, threshold):
        pairs_of(write_rows(tmp_path / "p.h5", rows_with_duplicates(60)), threshold)


def test_a_row_that_no_proof_holds_for_is_refused(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(150)
    vectors[120] *= 1.2
    with raises(StorageError, "row 120"):
        pairs_of(write_rows(tmp_path / "p.h5", vectors), 0.4)


def test_the_code_for_a_gpu_finds_the_same(tmp_path: Path) -> None:
    """CuPy has NumPy's functions, and one to bring an array home: here NumPy stands in for it."""
    home: list[int] = []

    def asnumpy(found: Any) -> Any:
        home.append(len(found))
        return found.copy()

    names = ("asarray", "empty", "matmul", "flatnonzero")
    cupy: Any = SimpleNamespace(**{name: getattr(np, name) for name in names}, asnumpy=asnumpy)
    vectors = rows_with_duplicates(300)
    path = write_rows(tmp_path / "p.h5", vectors)
    assert pairs_of(path, 0.4, products=TileProducts(cupy, (128, 128))) == pairs_by_numpy(vectors, 0.4)
    assert sum(home) >= len(pairs_by_numpy(vectors, 0.4))


def test_without_a_gpu_auto_is_the_cpu_and_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pairs.tiles.count_gpus", lambda: 0)
    assert isinstance(open_tile_products("auto"), TileProducts)
    if count_gpus():
        pytest.skip("there is a GPU")
    with raises((EngineError, MissingDependencyError), "--device cpu"):
        open_tile_products("gpu")


@pytest.mark.parametrize(
    ("raised", "kind"), [(RuntimeError("cudaErrorX"), EngineError), (MemoryError("64 GB"), OutOfMemoryError)]
)
def test_what_a_gpu_refuses_is_told_in_words(tmp_path: Path, raised: Exception, kind: type[Exception]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise raised

    cupy: Any = SimpleNamespace(empty=np.empty, asarray=np.asarray, matmul=refuse)
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(60))
    with raises(kind, "CuPy", raised, "--device cpu"):
        pairs_of(path, 0.4, products=TileProducts(cupy))
