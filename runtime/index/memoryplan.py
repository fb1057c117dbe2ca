"""Plan the memory of a GPU before any upload: pure arithmetic, tested without a GPU.

The sizes are those of FAISS's flat index on a GPU (DistanceUtils.cuh, GpuIndex.cu and FlatIndex.cu, 1.15): a search
multiplies in tiles, two at a time, and keeps the best of each tile; an upload to FP16 passes through pages. By default
FAISS takes 1 to 1.5 GiB for them. Here each index is told to take the planned amount (`gpu.GpuIndex`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, OutOfMemoryError

# FAISS selects no more on a GPU. At most half of them are hits: the other candidates are needed to prove the hits.
MAX_GPU_CANDIDATES = 2048
MAX_GPU_HITS = MAX_GPU_CANDIDATES // 2
# Queries that FAISS gets at once, over all indexes: its temporary memory grows with them.
QUERIES = 256
# For CUDA's context, cuBLAS's workspace, and an engine on the same GPU.
RESERVED_BYTES = 1 << 30
_TILE_BYTES = 512 << 20, 768 << 20, 1 << 30  # on a GPU of up to 4 GiB, up to 8 GiB, above
_PAGE_BYTES = 256 << 20
_NORM_BYTES = 8  # FAISS keeps the length of each row, twice while it uploads
_CANDIDATE_BYTES = 12
# Larger shards are no faster, and the GPU is idle until the first one is uploaded.
_SHARD_BYTES, _SHARD_ROWS = 1 << 30, 1 << 20
_MIN_SHARD_ROWS = 4096
# FAISS selects with one thread block for each query: one query in one index leaves all but one multiprocessor idle.
_MAX_PIECES, _PIECE_ROWS = 8, 1 << 17


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where the rows are, and the memory that a search takes on the GPU.

    Attributes:
        placement: all rows as FP32, all as FP16, or FP32 streamed in shards, two at a time.
        rows: N.
        shard_rows: rows of an index: a shard when streamed, else one of the pieces that are searched in parallel.
        batch: queries that each index gets at once.
        vector_bytes: rows on the GPU at one time.
        scratch_bytes: FAISS's temporary memory, for each index (two when streamed).
        device_bytes: the total, with the memory of CUDA.
    """

    placement: Literal["fp32", "fp16", "streamed"]
    rows: int
    shard_rows: int
    batch: int
    vector_bytes: int
    scratch_bytes: int
    device_bytes: int

    def __str__(self) -> str:
        pieces = -(-self.rows // max(1, self.shard_rows))
        how = {
            "fp32": f"all {self.rows:,} rows in FP32",
            "fp16": f"all {self.rows:,} rows in FP16",
            "streamed": f"{self.rows:,} rows streamed in {pieces} shards of {self.shard_rows:,}, two at a time",
        }
        vectors, total = self.vector_bytes / 1e9, self.device_bytes / 1e9
        return f"{how[self.placement]}: {vectors:.2f} GB of vectors, {total:.2f} GB in all"


def plan_memory(rows: int, dimension: int, free_bytes: int, *, k: int, queries: int) -> MemoryPlan:
    """Choose the first placement that fits: FP32, FP16, streamed. All give the same answer; FP32 needs the least proof.

    Args:
        rows: N.
        dimension: D.
        free_bytes: the GPU's free memory.
        k: hits for each query.
        queries: number of queries in one search.
    Raises:
        ConfigError: k is above `MAX_GPU_HITS`.
        OutOfMemoryError: not even two small shards fit.
    """
    if k > MAX_GPU_HITS:
        raise ConfigError(
            f"k is {k}; expected: at most {MAX_GPU_HITS}, because FAISS selects at most {MAX_GPU_CANDIDATES} rows on a "
            f"GPU. For more, search with: --device cpu"
        )
    for half in (False, True):
        plan = resident_plan(rows, dimension, half=half, queries=queries)
        if plan.device_bytes <= free_bytes:
            return plan
    return streamed_plan(rows, dimension, free_bytes, queries=queries)


def resident_plan(rows: int, dimension: int, *, half: bool, queries: int, pieces: int = _MAX_PIECES) -> MemoryPlan:
    """Plan for all rows on the GPU in at most `pieces` indexes, whether they fit or not."""
    vectors = rows * dimension * (2 if half else 4)
    pieces = max(1, min(pieces, rows // _PIECE_ROWS))
    piece, batch = -(-rows // pieces), QUERIES // pieces
    scratch = _scratch(piece, dimension, half=half, queries=min(queries, batch))
    # Besides the scratch, during the upload: a page, and the same page as FP16.
    upload = min(_PAGE_BYTES, 4 * piece * dimension) * 3 // 2 if half else 0
    total = vectors + rows * _NORM_BYTES + pieces * scratch + upload + RESERVED_BYTES
    return MemoryPlan("fp16" if half else "fp32", rows, piece, batch, vectors, scratch, total)


def streamed_plan(rows: int, dimension: int, free_bytes: int, *, queries: int) -> MemoryPlan:
    """Plan for two shards in FP32, as large as possible: one is searched while the next one is uploaded.

    Raises:
        OutOfMemoryError: two small shards do not fit.
    """
    row_bytes = 4 * dimension + _NORM_BYTES
    shard = min(rows, _SHARD_ROWS, max(_MIN_SHARD_ROWS, _SHARD_BYTES // row_bytes))
    batch = QUERIES // 2
    scratch = _scratch(shard, dimension, half=False, queries=min(queries, batch))
    reserved = 2 * scratch + RESERVED_BYTES
    fewest = min(rows, _MIN_SHARD_ROWS)
    if free_bytes < reserved + 2 * fewest * row_bytes:
        raise OutOfMemoryError(
            f"the GPU has {free_bytes / 1e9:.2f} GB free; expected: at least "
            f"{(reserved + 2 * fewest * row_bytes) / 1e9:.2f} GB to search {dimension} dimensions. "
            f"Close other programs that use its memory, or search with: --device cpu"
        )
    shard = min(shard, (free_bytes - reserved) // (2 * row_bytes))
    return MemoryPlan(
        "streamed", rows, shard, batch, 2 * shard * dimension * 4, scratch, reserved + 2 * shard * row_bytes
    )


def _scratch(rows: int, dimension: int, *, half: bool, queries: int) -> int:
    """Bytes of temporary memory that FAISS takes for a search of one index, on any GPU.

    Smaller tiles take less for products and more for lists. FAISS reserves at most 1 GiB on a GPU of up to 8 GiB, and
    1.5 GiB on a larger one; `QUERIES` is small enough to stay below.
    """
    most = 0
    for tile in _TILE_BYTES:
        columns = min(rows, tile // (2 * (2 if half else 4)) // (1024 if dimension <= 32 else 512))
        tiles = -(-rows // max(1, columns))
        products = 2 * queries * columns * 4
        lists = 2 * queries * tiles * MAX_GPU_CANDIDATES * _CANDIDATE_BYTES
        most = max(most, products + lists)
    copies = queries * (dimension * (4 + 2) + MAX_GPU_CANDIDATES * _CANDIDATE_BYTES)
    return most + copies + (1 << 20)
