"""Choose the index for a search: exact search if it is fast enough, else the smallest with a high recall."""

from __future__ import annotations

import logging
import os

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, EngineError, StorageError
from ..storage.file import EmbeddingFile
from .approximate import ApproximateIndex
from .flat import FlatIndex, exact_latency
from .kinds import APPROXIMATE, MIN_APPROXIMATE_ROWS
from .measure import MIN_RECALL
from .placement import check_device, choose_gpu, estimate_s

# For more hits, re-ranking the candidates takes longer than exact search.
MAX_APPROXIMATE_HITS = 1000
# An estimate so many times below the latency limit is trusted without a measurement.
_ESTIMATE_MARGIN = 4

logger = logging.getLogger(__name__)


def open_index(
    gallery: EmbeddingFile,
    device: str = "auto",
    *,
    k: int,
    queries: int,
    index: str = "auto",
    latency_ms: float = 100.0,
    mask: NDArray[np.bool_] | None = None,
) -> FlatIndex | ApproximateIndex:
    """Open the index, on the device, that suits a search of the given size.

    Args:
        gallery: an open embedding file.
        device: "auto", "cpu", "gpu" (the first one) or the number of a GPU; only "auto" falls back to the CPU, and
            logs the reason.
        k: hits for each query.
        queries: number of queries in one search.
        index: "flat" (exact) or one of `kinds.APPROXIMATE`; "auto" is flat on a GPU, for a small file and if flat is
            within the latency.
        latency_ms: maximum time of one query, for "auto"; with any index, several at once take less time each.
        mask: (N,) bool, the rows to search; they are always searched exactly, on the CPU. None for all.
    Raises:
        ConfigError: index or device is unknown, they cannot be combined, or the gallery is too small.
        StorageError: the gallery is damaged, FAISS fails, or an approximate index cannot be saved.
        MissingDependencyError: FAISS, or FAISS for GPUs, is not installed.
        EngineError, OutOfMemoryError: the GPU does not exist, fails, or has too little memory.
    """
    check_index_options(device, index, latency_ms)
    if mask is not None:
        if index not in ("auto", "flat") or device not in ("auto", "cpu"):
            raise ConfigError(
                f"a search by age or gender is exact, and runs on the CPU; got: index {index}, device {device}. Leave "
                f"--index and --device out"
            )
        return FlatIndex(gallery, mask=mask)
    if index in APPROXIMATE:
        return ApproximateIndex(gallery, index, k)
    gpu = choose_gpu(device, gallery.rows, gallery.dimension, k=k, queries=queries)
    if gpu is not None:
        try:
            return FlatIndex(gallery, gpu)
        except EngineError as err:
            if device != "auto":
                raise
            logger.warning("searching on the CPU: %s", err.message)
    return FlatIndex(gallery) if index == "flat" else _choose_index(gallery, k, latency_ms)


def check_index_options(device: str, index: str, latency_ms: float) -> None:
    """Refuse options that `open_index` cannot follow.

    Raises:
        ConfigError: index or device is unknown, or they cannot be combined.
    """
    check_device(device)
    if index not in ("auto", "flat", *APPROXIMATE):
        raise ConfigError(f"unknown index: {index!r}; expected: auto, flat, {', '.join(APPROXIMATE)}")
    if not latency_ms > 0:
        raise ConfigError(f"the latency is {latency_ms} ms; expected: more than 0 ms")
    if index in APPROXIMATE and device not in ("auto", "cpu"):
        raise ConfigError(
            f"the index {index} cannot be searched on the device {device}. Use --index flat, or --device cpu"
        )


def _choose_index(gallery: EmbeddingFile, k: int, latency_ms: float) -> FlatIndex | ApproximateIndex:
    """Choose exact search, or the smallest index with enough recall within the latency, or else the fastest one."""
    flat = FlatIndex(gallery)
    # Without a path nothing can be saved beside the file, and all rows are in memory already.
    if gallery.rows < MIN_APPROXIMATE_ROWS or k > MAX_APPROXIMATE_HITS or flat.path is None:
        return flat
    if _is_within(gallery, latency_ms):
        return flat
    exact_ms = exact_latency(gallery)
    slower: list[tuple[float, str]] = []
    for kind in APPROXIMATE:
        try:
            index = ApproximateIndex(gallery, kind, k)
        except StorageError as err:
            logger.warning("searching exactly: %s", err.message)
            return flat
        measured = index.facts.measured
        assert measured is not None
        if measured.recall >= MIN_RECALL and measured.latency_ms <= latency_ms:
            return index
        with index:
            logger.info(
                "rejecting the index %s: expected recall %.2f within %g ms", index.facts, MIN_RECALL, latency_ms
            )
        if measured.recall >= MIN_RECALL and measured.latency_ms < exact_ms:
            slower.append((measured.latency_ms, kind))
    if slower:
        return ApproximateIndex(gallery, min(slower)[1], k)
    logger.info("searching exactly: no index reaches recall %.2f and is faster than %.1f ms", MIN_RECALL, exact_ms)
    return flat


def _is_within(gallery: EmbeddingFile, latency_ms: float) -> bool:
    """Whether exact search of one query is within the latency: by a clear estimate, or else by measurement."""
    estimate_ms = 1000 * estimate_s(gallery.rows, gallery.dimension, 1, cores=len(os.sched_getaffinity(0)))[0]
    return _ESTIMATE_MARGIN * estimate_ms <= latency_ms or exact_latency(gallery) <= latency_ms
