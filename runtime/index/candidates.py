"""Propose the rows that may be best, by FAISS: all rows in one index, in several side by side, or a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import Candidates, fp32_error_bound
from .memoryplan import MOST_CANDIDATES, MOST_HITS


class HostRows:
    """The index in the host's memory, or mapped into it."""

    def __init__(self, index: Any) -> None:
        self.error = fp32_error_bound(index.d)
        self.most = int(index.ntotal)
        self._index = index

    def counts(self, k: int) -> Iterator[int]:
        """See CandidateSource.counts. One number: after it, a pass over all rows costs no more than asking again."""
        yield _first_count(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See CandidateSource.candidates."""
        scores, rows = self._index.search(queries, count)
        return scores, rows


class ResidentRows:
    """All rows on a GPU, FP32 or FP16, in one index or in several that are searched side by side."""

    most = MOST_HITS

    def __init__(self, indexes: Sequence[Any], error: float, batch: int) -> None:
        """Take the filled indexes, in the order of their rows.

        Args:
            indexes: with `search` and `ntotal` of FAISS; each may be used from a thread of its own.
            error: of their scores.
            batch: queries that an index is given at once.
        """
        self.error = error
        self._indexes, self._batch = indexes, batch
        self._starts = np.cumsum([0, *(index.ntotal for index in indexes[:-1])])
        self._threads = ThreadPoolExecutor(len(indexes), "facemill-pieces")  # ends when this is dropped

    def counts(self, k: int) -> Iterator[int]:
        """See CandidateSource.counts."""
        return _doubling(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See CandidateSource.candidates."""

        def search(index: Any) -> Candidates:
            return _in_batches(index, queries, min(count, index.ntotal), self._batch)

        pieces = zip(self._threads.map(search, self._indexes), self._starts, strict=True)
        return merge_candidates([(scores, rows + start) for (scores, rows), start in pieces], count)


class StreamedRows:
    """All rows, a shard at a time: while one is searched, a thread puts the next one into the other index."""

    most = MOST_HITS

    def __init__(
        self, vectors: NDArray[np.float32], shard_rows: int, indexes: tuple[Any, Any], error: float, batch: int
    ) -> None:
        """Take two empty indexes.

        Args:
            vectors: (N, D) float32, C-contiguous; may be mapped from a file, and is read once a search.
            shard_rows: rows of a shard; the last one may be smaller.
            indexes: with `add`, `reset`, `search` and `ntotal` of FAISS; each may be used from a thread of its own.
            error, batch: as for ResidentRows.
        """
        self.error = error
        self._vectors, self._shard_rows, self._indexes, self._batch = vectors, shard_rows, indexes, batch

    def counts(self, k: int) -> Iterator[int]:
        """See CandidateSource.counts."""
        return _doubling(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See CandidateSource.candidates. One pass over all rows, however many queries."""
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start, index in self._shards():
            scores, rows = _in_batches(index, queries, min(count, index.ntotal), self._batch)
            best = merge_candidates((best, (scores, rows + start)), count)
        return best

    def _shards(self) -> Iterator[tuple[int, Any]]:
        """The first row of each shard, and the index that holds it until the next one is asked for."""
        starts = range(0, len(self._vectors), self._shard_rows)
        with ThreadPoolExecutor(1, "facemill-shards") as reader:
            coming = reader.submit(self._load, self._indexes[0], 0)
            for number, start in enumerate(starts):
                coming.result()
                if number + 1 < len(starts):
                    coming = reader.submit(self._load, self._indexes[(number + 1) % 2], starts[number + 1])
                yield start, self._indexes[number % 2]

    def _load(self, index: Any, start: int) -> None:
        index.reset()
        index.add(self._vectors[start : start + self._shard_rows])


def merge_candidates(parts: Sequence[Candidates], count: int) -> Candidates:
    """The `count` highest of several lists of candidates, for each query."""
    scores = np.concatenate([part[0] for part in parts], axis=1)
    rows = np.concatenate([part[1] for part in parts], axis=1)
    if scores.shape[1] <= count:
        return scores, rows
    best = np.argpartition(scores, -count, axis=1)[:, -count:]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _first_count(k: int) -> int:
    """Enough to prove the hits unless rows are crowded: spare candidates cost little, asking again costs much."""
    return 2 * k + 32


def _doubling(k: int) -> Iterator[int]:
    """Twice as many each time, up to what FAISS selects on a GPU."""
    count = _first_count(k)
    while count < MOST_CANDIDATES:
        yield count
        count *= 2
    yield MOST_CANDIDATES


def _in_batches(index: Any, queries: NDArray[np.float32], count: int, batch: int) -> Candidates:
    """Search as many queries at a time as the memory plan counts on."""
    parts = [index.search(queries[start : start + batch], count) for start in range(0, len(queries), batch)]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([rows for _, rows in parts])
