"""Where a gallery is searched: on the CPU, or on a GPU that has room for it and is worth the upload."""

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

# Orders of magnitude, which decide nothing but `auto`: products a second on one core (benchmarks/search_exact.py),
# bytes a second that a CPU reads and that reach a GPU from a mapped file, and what CUDA takes to start.
_PRODUCTS_A_CORE = 6e9
_READ_BYTES = 10e9
_UPLOAD_BYTES = 4e9
_START_S = 3.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU, and how the rows lie on it.

    Attributes:
        device: its number.
        plan: for its memory.
    """

    device: int
    plan: MemoryPlan


def choose_place(device: str, rows: int, dimension: int, *, k: int, queries: int) -> Place | None:
    """Decide where to search, and say it in the log.

    Args:
        device: "auto", "cpu", "gpu" (the first one) or the number of a GPU.
        rows: N.
        dimension: D.
        k: hits for each query.
        queries: in one search.
    Returns:
        A GPU and its memory plan; None for the CPU.
    Raises:
        ConfigError: the device is none of these, or a GPU cannot find that many hits.
        MissingDependencyError, EngineError: a GPU was asked for and cannot be had.
    """
    check_device(device)
    if device == "cpu" or (device == "auto" and not _pays(rows, dimension, queries)):
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
    return Place(number, plan)


def check_device(device: str) -> None:
    """Refuse a name that is no device.

    Raises:
        ConfigError: it is none of auto, cpu, gpu and the number of a GPU.
    """
    if device not in ("auto", "cpu", "gpu") and not device.isdecimal():
        raise ConfigError(f"the device is {device!r}; expected: auto, cpu, gpu or the number of a GPU")


def _pays(rows: int, dimension: int, queries: int) -> bool:
    """Whether there is a GPU that is done sooner than the CPU would be."""
    if not count_gpus():
        logger.debug("searching on the CPU: FAISS sees no GPU")
        return False
    cpu, gpu = estimate_s(rows, dimension, queries, cores=len(os.sched_getaffinity(0)))
    if gpu < cpu:
        return True
    words = "searching on the CPU: about %.1f s (queries: %d); on the GPU it would be %.1f s with the upload"
    logger.info(words, cpu, queries, gpu)
    return False


def estimate_s(rows: int, dimension: int, queries: int, *, cores: int) -> tuple[float, float]:
    """About how long one search takes on the CPU, and on a GPU with the upload of all rows."""
    products = rows * dimension
    cpu = 4 * products / _READ_BYTES + queries * products / (cores * _PRODUCTS_A_CORE)
    return cpu, _START_S + 4 * products / _UPLOAD_BYTES


def gpu_source(place: Place, host: Any) -> CandidateSource:
    """Put the rows where the plan says.

    Args:
        place: a GPU.
        host: FAISS's flat index of the rows; must outlive the source.
    Raises:
        EngineError, OutOfMemoryError: the GPU refuses.
    """
    return planned_source(
        place.plan,
        host,
        lambda half: GpuIndex(place.device, host.d, half=half, scratch_bytes=place.plan.scratch_bytes),
    )


def planned_source(plan: MemoryPlan, host: Any, new_index: Callable[[bool], Any]) -> CandidateSource:
    """Fill indexes by a plan.

    Args:
        plan: what goes where.
        host: as for `gpu_source`.
        new_index: an empty index, FP16 if told so; like `GpuIndex`.
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
    """(N, D) float32: the rows of FAISS's flat index where they lie, not copied. Valid as long as the index."""
    faiss = require("faiss", extra="cpu", purpose="searching")
    flat: NDArray[np.float32] = faiss.rev_swig_ptr(host.get_xb(), host.ntotal * host.d)
    return flat.reshape(host.ntotal, host.d)
