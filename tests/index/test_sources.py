"""The contract of every source of candidates for an exact answer. The oracle is NumPy in double precision.

The stand-ins imitate FAISS's GPU search on the CPU, with the same plan, proof, widening, streaming and merging: rows
and queries rounded to FP16, pieces searched concurrently, or shards put into two indexes in turns. The sources
`gpu-...` need a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.index.candidates import HostRows, ResidentRows, StreamedRows
from runtime.index.exact import CandidateSource, exact_top_k, fp16_error_bound, fp32_error_bound
from runtime.index.gpu import count_gpus
from runtime.index.memoryplan import MAX_GPU_CANDIDATES, QUERIES, MemoryPlan, resident_plan
from runtime.index.placement import GpuPlan, gpu_source, host_vectors, planned_source
from tests.support.errors import raises

GPU = pytest.mark.gpu
Maker = Callable[[Any], CandidateSource]
SHARD_ROWS = 700


def unit_rows(rows: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def crowd(rows: int, around: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Make rows that all differ, but by less than the precision of FP16."""
    noise = np.random.default_rng(seed).standard_normal((rows, len(around))).astype(np.float32)
    near = around + np.float32(3e-5) * noise
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def oracle(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    products = queries.astype(np.float64)[:, None] * vectors.astype(np.float64)[None]
    scores = products.sum(-1).astype(np.float32)
    rows = np.stack([np.lexsort((np.arange(len(vectors)), -line))[:k] for line in scores])
    return rows, np.take_along_axis(scores, rows, 1)


class HalfIndex:
    """FAISS's FP16 storage on the CPU, searched with queries rounded in the same way as on a GPU."""

    def __init__(self, dimension: int) -> None:
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        self.add, self.reset = self._index.add, self._index.reset

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores, rows = self._index.search(queries.astype(np.float16).astype(np.float32), k)
        return scores, rows


def plan_for(placement: str, host: Any) -> MemoryPlan:
    plan = resident_plan(host.ntotal, host.d, half="fp16" in placement, queries=300)
    if "pieces" in placement:
        return replace(plan, shard_rows=SHARD_ROWS, batch=QUERIES // 8)
    return replace(plan, placement="streamed", shard_rows=SHARD_ROWS) if placement == "streamed" else plan


def make_stand_in(placement: str) -> Maker:
    def make(host: Any) -> CandidateSource:
        def new_index(half: bool) -> Any:
            return HalfIndex(host.d) if half else faiss.IndexFlatIP(host.d)

        return planned_source(plan_for(placement, host), host, new_index)

    return make


def make_gpu_source(placement: str) -> Maker:
    return lambda host: gpu_source(GpuPlan(0, plan_for(placement, host)), host)


MAKERS: dict[str, Maker] = {
    "host": HostRows,
    "fp32": make_stand_in("fp32"),
    "fp16": make_stand_in("fp16"),
    "fp32-pieces": make_stand_in("fp32-pieces"),
    "fp16-pieces": make_stand_in("fp16-pieces"),
    "streamed": make_stand_in("streamed"),
    "gpu-fp32": make_gpu_source("fp32"),
    "gpu-fp16": make_gpu_source("fp16"),
    "gpu-fp16-pieces": make_gpu_source("fp16-pieces"),
    "gpu-streamed": make_gpu_source("streamed"),
}


@pytest.fixture(params=[pytest.param(name, marks=GPU) if name.startswith("gpu") else name for name in MAKERS])
def maker(request: pytest.FixtureRequest) -> Maker:
    if request.param.startswith("gpu") and not count_gpus():
        pytest.skip("FAISS sees no NVIDIA GPU, or is built without GPU support")
    return MAKERS[request.param]


class RecordingRows:
    """The exact rows, with a count of full passes over them."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        self.passes = 0

    def range_search(self, queries: NDArray[np.float32], bound: float) -> Any:
        self.passes += 1
        return self.index.range_search(queries, bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)


class RecordingSource:
    """A source that records the numbers of requested candidates."""

    def __init__(self, source: CandidateSource) -> None:
        self.error, self.max_hits, self.counts = source.error, source.max_hits, source.counts
        self._source = source
        self.asked: list[int] = []

    def candidates(self, queries: NDArray[np.float32], count: int) -> Any:
        self.asked.append(count)
        return self._source.candidates(queries, count)


def assert_exact(
    maker: Maker, vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[RecordingSource, RecordingRows]:
    host = RecordingRows(vectors)
    source = RecordingSource(maker(host.index))
    rows, scores = exact_top_k(host, source, queries, k)
    expected_rows, expected_scores = oracle(vectors, queries, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    return source, host


@pytest.mark.slow
@pytest.mark.parametrize(("dimension", "queries", "k"), [(32, 1, 1), (32, 3, 10), (70, 300, 50), (512, 5, 50)])
def test_answers_equal_exact_numpy(maker: Maker, dimension: int, queries: int, k: int) -> None:
    assert_exact(maker, unit_rows(3000, dimension), unit_rows(queries, dimension, seed=1), k)


def test_each_row_finds_itself(maker: Maker) -> None:
    vectors = unit_rows(2100)
    source, host = assert_exact(maker, vectors, vectors[[0, SHARD_ROWS - 1, SHARD_ROWS, 2099]], 1)
    assert len(source.asked) == 1
    assert host.passes == 0


@pytest.mark.parametrize("k", [1, 7, 99, 100, 101, 250])
def test_ties_go_to_the_lower_row_for_any_k(maker: Maker, k: int) -> None:
    vectors = unit_rows(1500)
    vectors[np.random.default_rng(3).permutation(1500)[:100]] = vectors[0]
    assert_exact(maker, vectors, np.concatenate([vectors[:1], unit_rows(2, seed=4)]), k)


def test_a_gallery_of_many_copies_of_three_vectors(maker: Maker) -> None:
    vectors = unit_rows(3)[np.arange(9000) % 3]
    _, host = assert_exact(maker, vectors, np.concatenate([vectors[:2], unit_rows(1, seed=5)]), 20)
    assert host.passes == 3  # no number of candidates separates 3,000 equal rows


@pytest.mark.parametrize("rows", [1, 2, SHARD_ROWS, SHARD_ROWS + 1])
def test_as_many_hits_as_there_are_rows(maker: Maker, rows: int) -> None:
    vectors = unit_rows(rows)
    assert_exact(maker, vectors, unit_rows(2, seed=6), min(rows, 700))


def test_no_queries(maker: Maker) -> None:
    host = RecordingRows(unit_rows(10))
    rows, scores = exact_top_k(host, maker(host.index), np.empty((0, 32), np.float32), 3)
    assert rows.shape == scores.shape == (0, 3)


def test_queries_and_rows_of_zeros(maker: Maker) -> None:
    vectors = unit_rows(900)
    vectors[::7] = 0
    queries = unit_rows(2, seed=7)
    queries[1] = 0
    assert_exact(maker, vectors, queries, 5)


@pytest.mark.parametrize("crowded", [300, 3000])
def test_rows_closer_than_the_precision_of_fp16(maker: Maker, crowded: int) -> None:
    around = unit_rows(1, 64, seed=8)[0]
    vectors = unit_rows(5000, 64, seed=9)
    places = np.random.default_rng(10).permutation(5000)[:crowded]
    vectors[places] = crowd(crowded, around, seed=11)
    queries = np.concatenate([around[None], crowd(1, around, seed=12), unit_rows(1, 64, seed=13)])
    source, host = assert_exact(maker, vectors, queries, 50)
    if source.error > 1e-4:  # FP16: 132 candidates are too few, and 3,000 exceed the limit
        assert len(source.asked) > 1
        assert (source.asked[-1] == MAX_GPU_CANDIDATES and host.passes > 0) == (crowded == 3000)
        assert host.passes <= 2  # never for the query without near rows


def test_without_the_error_bound_the_answer_would_be_wrong() -> None:
    """Prove that the previous test can fail."""
    around = unit_rows(1, 64, seed=8)[0]
    vectors = crowd(300, around, seed=11)
    host = RecordingRows(vectors)
    trusting = RecordingSource(MAKERS["fp16"](host.index))
    trusting.error = -1.0
    rows, _ = exact_top_k(host, trusting, around[None], 50)
    assert not np.array_equal(rows, oracle(vectors, around[None], 50)[0])


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [8, 128, 512])
def test_no_score_error_exceeds_the_bound_of_the_source(maker: Maker, dimension: int) -> None:
    vectors, queries = unit_rows(2000, dimension, seed=14), unit_rows(40, dimension, seed=15)
    vectors[:40] = queries
    # All numbers are just above the midpoint of two FP16 values, so that the rounding errors add up.
    vectors[40] = queries[0] = 2.0 ** -np.ceil(np.log2(dimension) / 2) * (1 + 2.0**-11 + 2.0**-20)
    host = RecordingRows(vectors)
    source = maker(host.index)
    scores, rows = source.candidates(queries, 500)
    exact = np.take_along_axis(queries.astype(np.float64) @ vectors.T.astype(np.float64), rows, 1)
    assert np.abs(scores - exact).max() <= source.error


@pytest.mark.parametrize("dimension", [64, 1024])
def test_the_bound_of_fp16_is_tight(dimension: int) -> None:
    worst = np.full((1, dimension), dimension**-0.5 * (1 + 2.0**-11 + 2.0**-20), np.float32)
    host = faiss.IndexFlatIP(dimension)
    host.add(worst)
    scores, _ = MAKERS["fp16"](host).candidates(worst, 1)
    off = abs(float(scores[0, 0]) - float((worst.astype(np.float64) ** 2).sum()))
    assert 0.7 * fp16_error_bound(dimension) < off < fp16_error_bound(dimension)


def test_bounds_for_512_dimensions() -> None:
    assert 3e-5 < fp32_error_bound(512) < 4e-5
    assert 2.0**-10 < fp16_error_bound(512) < 1.2e-3


def test_candidates_double_up_to_the_limit_of_a_gpu() -> None:
    resident = ResidentRows([faiss.IndexFlatIP(4)], 0.0, 1)
    assert list(resident.counts(50)) == [132, 264, 528, 1056, 2048]
    assert list(resident.counts(1)) == [34, 68, 136, 272, 544, 1088, 2048]
    assert list(resident.counts(1024)) == [2048]
    assert list(HostRows(faiss.IndexFlatIP(4)).counts(9)) == [50]


class SlowIndex:
    """An index that logs when it is filled, and is searched only while the other index is being filled."""

    def __init__(self, dimension: int, log: list[tuple[str, int]], fill_events: dict[int, threading.Event]) -> None:
        self._index = faiss.IndexFlatIP(dimension)
        self._log, self._others = log, fill_events
        self.reset = self._index.reset

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        self.first = int(vectors[0, 0])
        self._log.append(("add", self.first))
        self._others[self.first].set()
        self._index.add(vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> Any:
        assert k <= self.ntotal, "FAISS would fill the missing places with rows that are not there"
        following = self._others.get(self.first + 1)
        assert following is None or following.wait(30), "the next shard was not read while this one was searched"
        self._log.append(("search", self.first))
        return self._index.search(queries, k)


def test_only_the_next_shard_is_read_while_one_is_searched() -> None:
    vectors = np.repeat(np.arange(7, dtype=np.float32), 10)[:65, None] * np.ones((1, 4), np.float32)
    log: list[tuple[str, int]] = []
    fill_events = {number: threading.Event() for number in range(7)}
    streamed = StreamedRows(vectors, 10, (SlowIndex(4, log, fill_events), SlowIndex(4, log, fill_events)), 0.0, 1)
    scores, rows = streamed.candidates(np.ones((1, 4), np.float32), 8)
    assert sorted(rows[0])[3:] == [60, 61, 62, 63, 64]
    assert set(rows[0]) <= set(range(50, 65))
    assert [step for step in log if step[0] == "search"] == [("search", number) for number in range(7)]
    for number in range(5):
        assert log.index(("add", number + 2)) > log.index(("search", number))
    assert sorted(scores[0]) == [20, 20, 20, 24, 24, 24, 24, 24]


def test_a_shard_that_cannot_be_read_ends_the_search() -> None:
    class BrokenIndex:
        ntotal = 10

        def __init__(self) -> None:
            self.index = faiss.IndexFlatIP(4)

        def reset(self) -> None:
            self.index.reset()

        def add(self, vectors: NDArray[np.float32]) -> None:
            if vectors[0, 0] == 2:
                raise OSError("the disk is gone")
            self.index.add(vectors)

        def search(self, queries: NDArray[np.float32], k: int) -> Any:
            return self.index.search(queries, k)

    vectors = np.repeat(np.arange(4, dtype=np.float32), 10)[:, None] * np.ones((1, 4), np.float32)
    before = threading.active_count()
    with raises(OSError, "the disk is gone"):
        StreamedRows(vectors, 10, (BrokenIndex(), BrokenIndex()), 0.0, 1).candidates(np.ones((1, 4), np.float32), 5)
    assert threading.active_count() == before


class BarrierIndex:
    """An index that answers only when all indexes are being searched, and records its queries."""

    ntotal = 10

    def __init__(self, all_asked: threading.Barrier) -> None:
        self._all_asked = all_asked
        self.asked: list[tuple[int, int]] = []

    def search(self, queries: NDArray[np.float32], k: int) -> Any:
        self._all_asked.wait(30)
        self.asked.append((len(queries), k))
        return np.tile(np.arange(k, dtype=np.float32), (len(queries), 1)), np.tile(np.arange(k), (len(queries), 1))


def test_pieces_are_searched_concurrently_by_batch_and_their_threads_end() -> None:
    before = threading.active_count()
    all_asked = threading.Barrier(3)
    pieces = [BarrierIndex(all_asked) for _ in range(3)]
    resident = ResidentRows(pieces, 0.0, 2)
    scores, rows = resident.candidates(np.ones((5, 4), np.float32), 12)
    assert [piece.asked for piece in pieces] == [[(2, 10), (2, 10), (1, 10)]] * 3
    assert sorted(rows[4]) == sorted(start + row for start in (0, 10, 20) for row in range(6, 10))
    assert sorted(scores[4]) == [6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("facemill-pieces")]
    del resident
    for thread in threads:
        thread.join(30)
    assert threading.active_count() == before


def test_rows_are_read_from_the_memory_of_faiss() -> None:
    host = faiss.IndexFlatIP(32)
    host.add(unit_rows(100))
    vectors = host_vectors(host)
    np.testing.assert_array_equal(vectors, unit_rows(100))
    assert not vectors.flags.owndata
    assert vectors.ctypes.data == int(host.get_xb())
