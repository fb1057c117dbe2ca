"""Choose where to search a gallery: on the CPU, or on a GPU with enough memory if the upload pays off."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, FacemillError
from ..extras import require
from .candidates import ResidentRows, StreamedRows
from .exact import CandidateSource, fp16_error_bound, fp32_error_bound
from .gpu import GpuIndex, count_gpus, gpu_memory
from .memoryplan import MemoryPlan, plan_memory

# Orders of magnitude, used only by `auto`: products per second on one core (benchmarks/search_exact.py), bytes per
# second that a CPU reads and that reach a GPU from a mapped file, and the start of CUDA.
_PRODUCTS_PER_CORE_S = 6e9
_READ_BYTES_S = 10e9
_UPLOAD_BYTES_S = 4e9
_START_S = 3.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """A GPU and the plan for its memory.

    Attributes:
        device: number of the GPU.
        plan: how the rows are placed in its memory.
    """

    device: int
    plan: MemoryPlan


def choose_gpu(device: str, rows: int, dimension: int, *, k: int, queries: int) -> GpuPlan | None:
    """Decide where to search, and log the decision.

    Args:
        device: "auto", "cpu", "gpu" (the first one) or the number of a GPU.
        rows: N.
        dimension: D.
        k: hits for each query.
        queries: number of queries in one search.
    Returns:
        A GPU and its memory plan; None for the CPU.
    Raises:
        ConfigError: the device is unknown, or k is too large for a GPU.
        MissingDependencyError: a GPU was requested, and FAISS for GPUs is not installed.
        EngineError, OutOfMemoryError: the requested GPU does not exist, or has too little memory.
    """
    check_device(device)
    if device == "cpu" or (device == "auto" and not _gpu_is_faster(rows, dimension, queries)):
        return None
    number = int(device) if device.isdecimal() else 0
    try:
        name, free = gpu_memory(number)
        plan = plan_memory(rows, dimension, free, k=min(k, rows), queries=queries)
    except FacemillError as err:
        if device != "auto":
            raise
        logger.info("searching on the CPU: %s", err.message)
        return None
    logger.info("searching on GPU %d (%s, %.2f GB free): %s", number, name, free / 1e9, plan)
    return GpuPlan(number, plan)


def check_device(device: str) -> None:
    """Refuse an unknown device.

    Raises:
        ConfigError: the device is not auto, cpu, gpu or the number of a GPU.
    """
    if device not in ("auto", "cpu", "gpu") and not device.isdecimal():
        raise ConfigError(f"the device is {device!r}; expected: auto, cpu, gpu or the number of a GPU")


def _gpu_is_faster(rows: int, dimension: int, queries: int) -> bool:
    """Whether a GPU would finish sooner than the CPU."""
    if not count_gpus():
        logger.debug("searching on the CPU: FAISS sees no GPU")
        return False
    cpu, gpu = estimate_s(rows, dimension, queries, cores=len(os.sched_getaffinity(0)))
    if gpu < cpu:
        return True
    message = "searching on the CPU: about %.1f s (queries: %d); a GPU would take %.1f s with the upload"
    logger.info(message, cpu, queries, gpu)
    return False


def estimate_s(rows: int, dimension: int, queries: int, *, cores: int) -> tuple[float, float]:
    """Estimate the seconds of one search on the CPU, and on a GPU with the upload of all rows."""
    products = rows * dimension
    cpu = 4 * products / _READ_BYTES_S + queries * products / (cores * _PRODUCTS_PER_CORE_S)
    return cpu, _START_S + 4 * products / _UPLOAD_BYTES_S


def gpu_source(gpu: GpuPlan, host: Any) -> CandidateSource:
    """Upload the rows by the plan.

    Args:
        gpu: a GPU and its memory plan.
        host: FAISS's flat index of the rows; must outlive the source.
    Raises:
        EngineError: the GPU fails.
        OutOfMemoryError: the GPU has too little memory.
    """
    return planned_source(
        gpu.plan,
        host,
        lambda half: GpuIndex(gpu.device, host.d, half=half, scratch_bytes=gpu.plan.scratch_bytes),
    )


def planned_source(plan: MemoryPlan, host: Any, new_index: Callable[[bool], Any]) -> CandidateSource:
    """Fill indexes by a plan.

    Args:
        plan: placement and sizes.
        host: FAISS's flat index of the rows; must outlive the source.
        new_index: makes an empty index like `GpuIndex`, FP16 if its argument is true.
    """
    vectors = host_vectors(host)
    if plan.placement == "streamed":
        indexes = new_index(False), new_index(False)
        return StreamedRows(vectors, plan.shard_rows, indexes, fp32_error_bound(host.d), plan.batch)
    half = plan.placement == "fp16"
    pieces = []
    for start in range(0, plan.rows, plan.shard_rows):
        index = new_index(half)
        index.add(vectors[start : start + plan.shard_rows])
        pieces.append(index)
    return ResidentRows(pieces, fp16_error_bound(host.d) if half else fp32_error_bound(host.d), plan.batch)


def host_vectors(host: Any) -> NDArray[np.float32]:
    """(N, D) float32: a view of the rows of FAISS's flat index, valid as long as the index."""
    faiss = require("faiss", extra="cpu", purpose="searching")
    flat: NDArray[np.float32] = faiss.rev_swig_ptr(host.get_xb(), host.ntotal * host.d)
    return flat.reshape(host.ntotal, host.d)
