"""Propose candidate rows with FAISS: from one index, from several in parallel, or one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import Candidates, Selected, fp32_error_bound
from .memoryplan import MAX_GPU_CANDIDATES, MAX_GPU_HITS


class HostRows:
    """An index in host memory, loaded or mapped."""

    def __init__(self, index: Any) -> None:
        self.error = fp32_error_bound(index.d)
        self.max_hits = int(index.ntotal)
        self._index = index

    def counts(self, k: int) -> Iterator[int]:
        """One count only: a pass over all rows costs no more than a second request."""
        yield _first_count(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Propose `count` rows for each query."""
        scores, rows = self._index.search(queries, count)
        return scores, rows


class SelectedRows(HostRows):
    """Some rows of an index in host memory."""

    def __init__(self, index: Any, selected: Selected) -> None:
        super().__init__(index)
        self.max_hits = selected.rows
        self._selected = selected

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Propose `count` of the rows for each query."""
        scores, rows = self._index.search(queries, count, params=self._selected.parameters())
        return scores, rows


class ResidentRows:
    """All rows on a GPU, FP32 or FP16, in one index or in several that are searched in parallel."""

    max_hits = MAX_GPU_HITS

    def __init__(self, indexes: Sequence[Any], error: float, batch: int) -> None:
        """Take filled indexes, in row order.

        Args:
            indexes: with FAISS's `search` and `ntotal`; each may be used from its own thread.
            error: upper bound of the error of their scores.
            batch: queries that an index gets at once.
        """
        self.error = error
        self._indexes, self._batch = indexes, batch
        self._starts = np.cumsum([0, *(index.ntotal for index in indexes[:-1])])
        self._threads = ThreadPoolExecutor(len(indexes), "facemill-pieces")  # ends when this is dropped

    def counts(self, k: int) -> Iterator[int]:
        """Counts that double up to the limit of a GPU."""
        return _double_counts(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Propose `count` rows for each query."""

        def search(index: Any) -> Candidates:
            return _in_batches(index, queries, min(count, index.ntotal), self._batch)

        pieces = zip(self._threads.map(search, self._indexes), self._starts, strict=True)
        return merge_candidates([(scores, rows + start) for (scores, rows), start in pieces], count)


class StreamedRows:
    """All rows, one shard at a time: while one index is searched, a thread loads the next shard into the other."""

    max_hits = MAX_GPU_HITS

    def __init__(
        self, vectors: NDArray[np.float32], shard_rows: int, indexes: tuple[Any, Any], error: float, batch: int
    ) -> None:
        """Take two empty indexes.

        Args:
            vectors: (N, D) float32, C-contiguous; may be mapped from a file. Each search reads it once.
            shard_rows: rows of a shard; the last one may be smaller.
            indexes: with FAISS's `add`, `reset`, `search` and `ntotal`; each may be used from its own thread.
            error: upper bound of the error of their scores.
            batch: queries that an index gets at once.
        """
        self.error = error
        self._vectors, self._shard_rows, self._indexes, self._batch = vectors, shard_rows, indexes, batch

    def counts(self, k: int) -> Iterator[int]:
        """Counts that double up to the limit of a GPU."""
        return _double_counts(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Propose `count` rows for each query, in one pass over all rows."""
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start, index in self._shards():
            scores, rows = _in_batches(index, queries, min(count, index.ntotal), self._batch)
            best = merge_candidates((best, (scores, rows + start)), count)
        return best

    def _shards(self) -> Iterator[tuple[int, Any]]:
        """The first row of each shard, and the index that holds the shard until the next one is requested."""
        starts = range(0, len(self._vectors), self._shard_rows)
        with ThreadPoolExecutor(1, "facemill-shards") as reader:
            loading = reader.submit(self._load, self._indexes[0], 0)
            for number, start in enumerate(starts):
                loading.result()
                if number + 1 < len(starts):
                    loading = reader.submit(self._load, self._indexes[(number + 1) % 2], starts[number + 1])
                yield start, self._indexes[number % 2]

    def _load(self, index: Any, start: int) -> None:
        index.reset()
        index.add(self._vectors[start : start + self._shard_rows])


def merge_candidates(parts: Sequence[Candidates], count: int) -> Candidates:
    """Keep the `count` highest of several candidate lists, for each query."""
    scores = np.concatenate([part[0] for part in parts], axis=1)
    rows = np.concatenate([part[1] for part in parts], axis=1)
    if scores.shape[1] <= count:
        return scores, rows
    best = np.argpartition(scores, -count, axis=1)[:, -count:]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _first_count(k: int) -> int:
    """Enough candidates to prove the hits unless scores are close: spare ones are cheap, a second request is not."""
    return 2 * k + 32


def _double_counts(k: int) -> Iterator[int]:
    """Double the count each time, up to the number that FAISS selects on a GPU."""
    count = _first_count(k)
    while count < MAX_GPU_CANDIDATES:
        yield count
        count *= 2
    yield MAX_GPU_CANDIDATES


def _in_batches(index: Any, queries: NDArray[np.float32], count: int, batch: int) -> Candidates:
    """Search with batches of the size that the memory plan assumes."""
    parts = [index.search(queries[start : start + batch], count) for start in range(0, len(queries), batch)]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([rows for _, rows in parts])
