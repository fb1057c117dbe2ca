"""Exact search: FAISS proposes the rows with the largest inner product, double precision decides.

FAISS multiplies in single or half precision, and differently for one query and for many. It finds the candidates.
`exact_top_k` computes their scores again, in one way for all, so that the answer depends neither on the batch nor on
the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, FacemillError, StorageError
from ..extras import require
from ..records import MAX_NORM
from ..storage.file import EmbeddingFile
from .candidates import HostRows
from .exact import CandidateSource, exact_top_k
from .indexfile import ensure_index, keep_latency, known_latency
from .measure import IndexFacts, median_ms
from .place import Place, gpu_source

_TIMED_QUERIES = 5
_TIMED_HITS = 50

logger = logging.getLogger(__name__)


class FlatIndex:
    """All vectors of a gallery, ready to be searched. Owned by `with`; the index file is mapped, not loaded.

    Attributes:
        rows: N.
        dimension: D.
        path: of the index file; None where it is kept in memory alone.
        facts: that the search is exact, and how long it takes where that is known.
    """

    def __init__(self, gallery: EmbeddingFile, place: Place | None = None) -> None:
        """Open the index beside the gallery; make it when there is none that is right.

        Args:
            gallery: an open embedding file.
            place: a GPU to put the vectors on; None for the CPU.
        Raises:
            StorageError: the gallery is damaged, or FAISS cannot hold it.
            MissingDependencyError: FAISS is not installed.
            EngineError, OutOfMemoryError: the GPU refuses.
        """
        self.rows, self.dimension = gallery.rows, gallery.dimension
        self.path = ensure_index(gallery) if self.rows else None
        self.facts = IndexFacts("flat", exact_ms=None if place or self.path is None else known_latency(self.path))
        self._host: Any = host_index(gallery, self.path)
        self._source: CandidateSource = gpu_source(place, self._host) if place and self.rows else HostRows(self._host)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best rows for each query: higher score first, lower row first among equal scores.

        Args:
            queries: (q, D) float32, unit rows.
            k: at least 1; more than N gives N.
        Returns:
            rows (q, min(k, N)) int64 and scores (q, min(k, N)) float32.
        Raises:
            ConfigError: queries are not (q, D) finite unit vectors, or k is below 1, or above what a GPU finds.
            StorageError: FAISS failed.
            EngineError, OutOfMemoryError: it failed on the GPU.
        """
        check_queries(queries, k, self.dimension)
        k = min(k, self.rows)
        if k > self._source.most:
            raise ConfigError(
                f"{k} hits were asked for; expected: at most {self._source.most} on a GPU. Use the CPU for more"
            )
        if not k:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        with faiss_words():
            return exact_top_k(self._host, self._source, np.ascontiguousarray(queries, np.float32), k)

    def __enter__(self) -> FlatIndex:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source = self._host = None  # type: ignore[assignment]


def exact_latency(gallery: EmbeddingFile) -> float:
    """Milliseconds that exact search takes for one query on the CPU: measured once, and kept with the index.

    Raises:
        As FlatIndex.
    """
    with FlatIndex(gallery) as index:
        if index.facts.exact_ms is not None:
            return index.facts.exact_ms
        logger.info("measuring exact search")
        queries = next(gallery.blocks())[:_TIMED_QUERIES]
        exact_ms = median_ms(lambda i: index.search(queries[i % len(queries)][None], _TIMED_HITS), _TIMED_QUERIES)
        if index.path is not None:
            keep_latency(index.path, exact_ms)
        return exact_ms


def check_queries(queries: NDArray[np.float32], k: int, dimension: int) -> None:
    """Refuse what no index can answer.

    Raises:
        ConfigError: queries are not (q, D) finite unit vectors, or k is below 1.
    """
    if k < 1:
        raise ConfigError(f"{k} hits were asked for; expected: 1 or more")
    if queries.ndim != 2 or queries.shape[1] != dimension or not np.isfinite(queries).all():
        raise ConfigError(f"queries are {queries.shape}; expected: (q, {dimension}) finite numbers")
    longest = float(np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64).max(initial=0)))
    if longest > MAX_NORM:
        raise ConfigError(f"a query has length {longest:.4g}; expected: unit vectors. Divide each by its length")


def host_index(gallery: EmbeddingFile, path: Path | None) -> Any:
    """FAISS's flat index of the exact rows, FP32.

    Args:
        gallery: an open embedding file.
        path: of `ensure_index`, to be mapped; None to put the rows in memory.
    Raises:
        StorageError, MissingDependencyError: as FlatIndex.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    with faiss_words():
        if path is not None:
            # The flag is of FAISS 1.10; before, the file is loaded.
            return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
        index = faiss.IndexFlatIP(gallery.dimension)
        for block in gallery.blocks():
            index.add(block)
        return index


@contextmanager
def faiss_words() -> Iterator[None]:
    """Errors of FAISS as errors of ours.

    FAISS raises RuntimeError, and MemoryError when a vector cannot be allocated.
    """
    try:
        yield
    except FacemillError:
        raise
    except (RuntimeError, MemoryError) as err:
        raise StorageError(
            f"FAISS failed: {' '.join(str(err).split()) or 'out of memory'}. If memory is short, close other programs; "
            f"otherwise remove the .faiss files beside the embedding file and search again"
        ) from err
