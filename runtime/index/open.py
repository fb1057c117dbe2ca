"""Choose the index that answers: exact search while it is fast enough, else the smallest that finds nearly all."""

from __future__ import annotations

import logging
import os

from ..errors import ConfigError, EngineError, StorageError
from ..storage.file import EmbeddingFile
from .approximate import ApproximateIndex
from .flat import FlatIndex, exact_latency
from .kinds import APPROXIMATE, FEW_ROWS
from .measure import MIN_RECALL
from .place import check_device, choose_place, estimate_s

# For more hits, scoring the candidates again takes longer than exact search.
MAX_APPROXIMATE_HITS = 1000
# An estimate so many times below the latency need not be measured.
_SURE_FACTOR = 4

logger = logging.getLogger(__name__)


def open_index(
    gallery: EmbeddingFile,
    device: str = "auto",
    *,
    k: int,
    queries: int,
    index: str = "auto",
    latency_ms: float = 100.0,
) -> FlatIndex | ApproximateIndex:
    """Open the vectors of a gallery in the index, and on the device, that suit a search of that size.

    Args:
        gallery: an open embedding file.
        device: as for `place.choose_place`; only "auto" falls back to the CPU, and says why in the log.
        k: hits for each query.
        queries: in one search.
        index: "flat" (exact) or one of `kinds.APPROXIMATE`; "auto" is flat on a GPU, in a small file and while it is
            within the latency.
        latency_ms: the longest time of one query, for "auto"; several at once take less time each, in any index.
    Raises:
        ConfigError: index or device is none of these, they do not go together, or the gallery is too small.
        As FlatIndex, ApproximateIndex and `place.choose_place`.
    """
    check_index_options(device, index, latency_ms)
    if index in APPROXIMATE:
        return ApproximateIndex(gallery, index, k)
    place = choose_place(device, gallery.rows, gallery.dimension, k=k, queries=queries)
    if place is not None:
        try:
            return FlatIndex(gallery, place)
        except EngineError as err:
            if device != "auto":
                raise
            logger.warning("searching on the CPU: %s", err.message)
    return FlatIndex(gallery) if index == "flat" else _automatic(gallery, k, latency_ms)


def check_index_options(device: str, index: str, latency_ms: float) -> None:
    """Refuse options that `open_index` cannot follow.

    Raises:
        ConfigError: index or device is unknown, or they do not go together.
    """
    check_device(device)
    if index not in ("auto", "flat", *APPROXIMATE):
        raise ConfigError(f"unknown index: {index!r}; expected: auto, flat, {', '.join(APPROXIMATE)}")
    if not latency_ms > 0:
        raise ConfigError(f"the latency is {latency_ms} ms; expected: more than 0")
    if index in APPROXIMATE and device not in ("auto", "cpu"):
        raise ConfigError(
            f"the index {index} cannot be searched on the device {device}. Use --index flat, or --device cpu"
        )


def _automatic(gallery: EmbeddingFile, k: int, latency_ms: float) -> FlatIndex | ApproximateIndex:
    """Exact search, or the smallest index that finds enough within the latency, or else the fastest that does."""
    flat = FlatIndex(gallery)
    # Without a path nothing can be saved beside the file, and all rows are in memory by now.
    if gallery.rows < FEW_ROWS or k > MAX_APPROXIMATE_HITS or flat.path is None:
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
    """Whether exact search of one query is within the latency: by a clear estimate, or else as measured."""
    estimate_ms = 1000 * estimate_s(gallery.rows, gallery.dimension, 1, cores=len(os.sched_getaffinity(0)))[0]
    return _SURE_FACTOR * estimate_ms <= latency_ms or exact_latency(gallery) <= latency_ms
