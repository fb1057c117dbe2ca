"""Which index answers: exact search while it is quick enough, else the smallest that finds nearly all of it."""

from __future__ import annotations

import logging
import os

from ..errors import ConfigError, EngineError, StorageError
from ..storage.file import EmbeddingFile
from .approximate import ApproximateIndex
from .flat import FlatIndex, exact_latency
from .place import check_device, choose_place, estimate_s
from .sizes import APPROXIMATE, FEW_ROWS
from .tune import WANTED

# More hits are scored again than exact search would take to score all.
MANY_HITS = 1000
# hnsw is larger than both and takes longest to make: by name only.
_TRIED = ("ivf", "sq8")
# An estimate that is this far within the latency need not be measured.
_SURE = 4

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
    """The vectors of a gallery in the index, and at the place, where one search of that size is best done.

    Args:
        gallery: an open embedding file.
        device: as for `place.choose_place`; only "auto" falls back to the CPU, and says why in the log.
        k: hits for each query.
        queries: in one search.
        index: "flat" (exact) or one of `sizes.APPROXIMATE`; "auto" is flat on a GPU, in a small file and while it keeps
            to the latency.
        latency_ms: what "auto" wants of one query; several at once are quicker, each, in any index.
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
            logger.warning("searching on the CPU: %s", err)
    return FlatIndex(gallery) if index == "flat" else _automatic(gallery, k, latency_ms)


def check_index_options(device: str, index: str, latency_ms: float) -> None:
    """Refuse options that `open_index` cannot follow.

    Raises:
        ConfigError: index or device is unknown, or they do not go together.
    """
    check_device(device)
    if index not in ("auto", "flat", *APPROXIMATE):
        raise ConfigError(f"the index is {index!r}; wanted: auto, flat, {', '.join(APPROXIMATE)}")
    if not latency_ms > 0:
        raise ConfigError(f"the latency is {latency_ms} ms; wanted: more than 0")
    if index in APPROXIMATE and device not in ("auto", "cpu"):
        raise ConfigError(
            f"the device is {device} and the index {index}; wanted: --index flat on a GPU, or --device cpu"
        )


def _automatic(gallery: EmbeddingFile, k: int, latency_ms: float) -> FlatIndex | ApproximateIndex:
    """Exact search, or the smallest index that finds enough; its latency decides where both would do."""
    flat = FlatIndex(gallery)
    # Without a path nothing can be kept beside the file, and all rows are in memory by now.
    if gallery.rows < FEW_ROWS or k > MANY_HITS or flat.path is None:
        return flat
    if _keeps_to(gallery, latency_ms):
        return flat
    exact_ms = exact_latency(gallery)
    slower: list[tuple[float, str]] = []
    for kind in _TRIED:
        try:
            index = ApproximateIndex(gallery, kind, k)
        except StorageError as err:
            logger.warning("searching exactly: %s", err)
            return flat
        measured = index.facts.measured
        assert measured is not None
        if measured.recall >= WANTED and measured.latency_ms <= latency_ms:
            return index
        with index:
            logger.info("the index %s does not do: wanted recall %.2f within %g ms", index.facts, WANTED, latency_ms)
        if measured.recall >= WANTED and measured.latency_ms < exact_ms:
            slower.append((measured.latency_ms, kind))
    if slower:
        return ApproximateIndex(gallery, min(slower)[1], k)
    logger.info("searching exactly: no index reaches recall %.2f and is quicker than %.1f ms", WANTED, exact_ms)
    return flat


def _keeps_to(gallery: EmbeddingFile, latency_ms: float) -> bool:
    """Whether exact search takes no longer for one query: by an estimate that is sure, or else as measured."""
    estimate_ms = 1000 * estimate_s(gallery.rows, gallery.dimension, 1, cores=len(os.sched_getaffinity(0)))[0]
    return _SURE * estimate_ms <= latency_ms or exact_latency(gallery) <= latency_ms
