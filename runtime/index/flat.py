"""Exact search: FAISS proposes the rows with the largest inner product, scores in double precision rank them.

FAISS multiplies in single or half precision, and differently for one query and for many. It finds the candidates.
`exact_top_k` computes all scores again in one way, so that the answer depends neither on the batch nor on the machine.
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
from .candidates import HostRows, SelectedRows
from .exact import CandidateSource, Selected, exact_top_k
from .indexfile import ensure_index, faiss_name, read_latency, save_latency
from .measure import IndexFacts, median_ms
from .placement import GpuPlan, gpu_source

_TIMED_QUERIES = 5
_TIMED_HITS = 50

logger = logging.getLogger(__name__)


class FlatIndex:
    """All vectors of a gallery, ready for searches. Owned by `with`; the index file is mapped, not loaded.

    Attributes:
        rows: N, or the number of rows to which the search is limited.
        dimension: D.
        path: the index file; None if the index is only in memory.
        facts: the kind, and the latency if it was measured.
    """

    def __init__(
        self, gallery: EmbeddingFile, gpu: GpuPlan | None = None, mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Open the index beside the gallery. Build it if no valid one exists.

        Args:
            gallery: an open embedding file.
            gpu: the GPU for the vectors; None for the CPU.
            mask: (N,) bool, the rows to which searches are limited, on the CPU; None for all.
        Raises:
            StorageError: the gallery is damaged, or FAISS cannot hold it.
            MissingDependencyError: FAISS is not installed.
            EngineError, OutOfMemoryError: the GPU fails, or has too little memory.
        """
        self.rows, self.dimension = gallery.rows, gallery.dimension
        self.path = ensure_index(gallery) if self.rows else None
        self.facts = IndexFacts("flat", exact_ms=None if gpu or self.path is None else read_latency(self.path))
        self._host: Any = host_index(gallery, self.path)
        self._source: CandidateSource = gpu_source(gpu, self._host) if gpu and self.rows else HostRows(self._host)
        self._selected = None if mask is None else Selected(mask)
        if self._selected is not None:
            self.rows, self._source = self._selected.rows, SelectedRows(self._host, self._selected)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the best rows for each query: higher score first, lower row first among equal scores.

        Args:
            queries: (q, D) float32, unit rows.
            k: at least 1; more than N gives N.
        Returns:
            rows (q, min(k, N)) int64 and scores (q, min(k, N)) float32.
        Raises:
            ConfigError: queries are not (q, D) finite unit vectors, or k is below 1 or above the limit of a GPU.
            StorageError: FAISS failed.
            EngineError, OutOfMemoryError: FAISS failed on the GPU.
        """
        check_queries(queries, k, self.dimension)
        k = min(k, self.rows)
        if k > self._source.max_hits:
            raise ConfigError(
                f"k is {k}; expected: at most {self._source.max_hits} on a GPU. For more, search with: --device cpu"
            )
        if not k:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        with translate_faiss_errors():
            return exact_top_k(self._host, self._source, np.ascontiguousarray(queries, np.float32), k, self._selected)

    def __enter__(self) -> FlatIndex:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source = self._host = None  # type: ignore[assignment]


def exact_latency(gallery: EmbeddingFile) -> float:
    """Milliseconds that exact search takes for one query on the CPU, measured once and saved with the index.

    Raises:
        StorageError: the gallery is damaged, or FAISS cannot hold it.
        MissingDependencyError: FAISS is not installed.
    """
    with FlatIndex(gallery) as index:
        if index.facts.exact_ms is not None:
            return index.facts.exact_ms
        logger.info("measuring exact search")
        queries = next(gallery.blocks())[:_TIMED_QUERIES]
        exact_ms = median_ms(lambda i: index.search(queries[i % len(queries)][None], _TIMED_HITS), _TIMED_QUERIES)
        if index.path is not None:
            save_latency(index.path, exact_ms)
        return exact_ms


def check_queries(queries: NDArray[np.float32], k: int, dimension: int) -> None:
    """Refuse queries that no index can answer.

    Raises:
        ConfigError: queries are not (q, D) finite unit vectors, or k is below 1.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; expected: 1 or more")
    if queries.ndim != 2 or queries.shape[1] != dimension or not np.isfinite(queries).all():
        raise ConfigError(f"queries are {queries.shape}; expected: (q, {dimension}) finite numbers")
    longest = float(np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64).max(initial=0)))
    if longest > MAX_NORM:
        raise ConfigError(f"a query has length {longest:.4g}; expected: unit vectors. Divide each by its length")


def host_index(gallery: EmbeddingFile, path: Path | None) -> Any:
    """FAISS's flat index of the exact rows, FP32.

    Args:
        gallery: an open embedding file.
        path: the index file of `ensure_index`, to map; None to load the rows into memory.
    Raises:
        StorageError: the gallery is damaged, or FAISS cannot hold it.
        MissingDependencyError: FAISS is not installed.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    with translate_faiss_errors():
        if path is not None:
            # FAISS 1.10 added the flag. Older versions load the file.
            with faiss_name(path) as name:
                return faiss.read_index(name, getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
        index = faiss.IndexFlatIP(gallery.dimension)
        for block in gallery.blocks():
            index.add(block)
        return index


@contextmanager
def translate_faiss_errors() -> Iterator[None]:
    """Raise errors of FAISS as StorageError.

    FAISS raises RuntimeError, and MemoryError if a vector cannot be allocated.
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
