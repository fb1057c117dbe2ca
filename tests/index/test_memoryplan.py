"""Memory of a GPU search, computed without a GPU."""

from __future__ import annotations

import pytest

from runtime.errors import ConfigError, OutOfMemoryError
from runtime.index.memoryplan import (
    MAX_GPU_HITS,
    QUERIES,
    RESERVED_BYTES,
    MemoryPlan,
    plan_memory,
    resident_plan,
    streamed_plan,
)
from tests.support.errors import raises

GB = 10**9
MILLIONS = 5_000_000, 512


def plan(free_gb: float, queries: int = 1, k: int = 50) -> MemoryPlan:
    return plan_memory(*MILLIONS, int(free_gb * GB), k=k, queries=queries)


def test_the_plan_of_five_million_rows() -> None:
    assert resident_plan(*MILLIONS, half=False, queries=1).vector_bytes == 10_240_000_000
    assert resident_plan(*MILLIONS, half=True, queries=1).vector_bytes == 5_120_000_000


@pytest.mark.parametrize(
    ("free_gb", "placement"),
    [(80, "fp32"), (24, "fp32"), (11.5, "fp32"), (11.2, "fp16"), (8, "fp16"), (6, "streamed"), (2, "streamed")],
)
def test_the_first_placement_that_fits_is_selected(free_gb: float, placement: str) -> None:
    assert plan(free_gb).placement == placement


@pytest.mark.parametrize("queries", [1, 10_000])
@pytest.mark.parametrize("dimension", [16, 512])
@pytest.mark.parametrize("free_gb", [3.2, 6, 12, 24, 80])
@pytest.mark.parametrize("rows", [0, 1, 5000, 1_000_000, 50_000_000])
def test_no_plan_exceeds_the_free_memory(rows: int, free_gb: float, dimension: int, queries: int) -> None:
    free = int(free_gb * GB)
    plan = plan_memory(rows, dimension, free, k=10, queries=queries)
    indexes = 2 if plan.placement == "streamed" else -(-rows // max(1, plan.shard_rows))
    held = 2 * plan.shard_rows if plan.placement == "streamed" else rows
    assert plan.vector_bytes == held * dimension * (2 if plan.placement == "fp16" else 4)
    assert plan.vector_bytes + indexes * plan.scratch_bytes + RESERVED_BYTES <= plan.device_bytes <= free
    assert plan.shard_rows == rows or 4096 <= plan.shard_rows < rows
    assert 1 <= plan.batch <= QUERIES // max(1, indexes)
    # FAISS reserves at most 1 GiB on a GPU of up to 8 GiB and 1.5 GiB on a larger one, whatever is requested.
    assert plan.scratch_bytes <= (1 << 30 if free_gb <= 8 else 3 << 29)


def test_memory_grows_with_the_queries_up_to_a_batch() -> None:
    sizes = [resident_plan(*MILLIONS, half=True, queries=q).scratch_bytes for q in (1, QUERIES, 10 * QUERIES)]
    assert sizes[0] < sizes[1] == sizes[2]


def test_rows_are_split_into_as_many_pieces_as_pay_off() -> None:
    assert resident_plan(*MILLIONS, half=True, queries=1).shard_rows == 625_000
    assert resident_plan(1_000_000, 512, half=False, queries=1).shard_rows == 142_858
    assert resident_plan(200_000, 512, half=True, queries=1).shard_rows == 200_000
    one_piece = resident_plan(*MILLIONS, half=True, queries=QUERIES, pieces=1)
    assert (one_piece.shard_rows, one_piece.batch) == (5_000_000, QUERIES)
    assert resident_plan(*MILLIONS, half=True, queries=QUERIES).device_bytes < one_piece.device_bytes + (100 << 20)


def test_a_shard_is_no_larger_than_useful() -> None:
    shard = streamed_plan(*MILLIONS, 80 * GB, queries=1)
    assert 0.9 * (1 << 30) < 4 * shard.shard_rows * 512 <= 1 << 30
    assert streamed_plan(1000, 512, 80 * GB, queries=1).shard_rows == 1000


def test_too_little_memory_is_reported_with_both_values() -> None:
    with raises(OutOfMemoryError, "0.50 GB", "--device cpu"):
        plan(0.5)


def test_more_hits_than_a_gpu_can_prove_are_refused() -> None:
    assert plan(80, k=MAX_GPU_HITS).placement == "fp32"
    with raises(ConfigError, 1025, 1024, "--device cpu"):
        plan(80, k=MAX_GPU_HITS + 1)


def test_a_plan_can_be_printed() -> None:
    assert str(plan(24)) == "all 5,000,000 rows in FP32: 10.24 GB of vectors, 11.38 GB in all"
    assert str(plan(8)).startswith("all 5,000,000 rows in FP16: 5.12 GB of vectors, ")
    assert str(plan(6)).startswith("5,000,000 rows streamed in 10 shards of 522,247, two at a time: 2.14 GB of vectors")
