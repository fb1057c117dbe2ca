"""Who proposes the rows that may be best: FAISS with all of them, or with a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .memoryplan import MOST_CANDIDATES, MOST_HITS
from .precision import single_error

Candidates = tuple[NDArray[np.float32], NDArray[np.int64]]


class Source(Protocol):
    """Proposes rows, with scores that may be a little wrong.

    Attributes:
        error: the most that a score is wrong by; see `precision`.
        most: the most hits that it can propose enough candidates for.
    """

    error: float
    most: int

    def counts(self, k: int) -> Iterator[int]:
        """How many candidates to ask for k hits: first, and then while the proof wants more."""
        ...

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """The `count` rows that score highest here, for each query.

        Args:
            queries: (q, D) float32.
            count: at most N.
        Returns:
            scores (q, count) float32 and rows (q, count) int64, in no order that counts.
        """
        ...


class HostRows:
    """The index in the host's memory, or mapped into it."""

    def __init__(self, index: Any) -> None:
        self.error = single_error(index.d)
        self.most = int(index.ntotal)
        self._index = index

    def counts(self, k: int) -> Iterator[int]:
        """See Source.counts. Once: then a pass over all rows, which is no dearer, settles it."""
        yield _first(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See Source.candidates."""
        scores, rows = self._index.search(queries, count)
        return scores, rows


class Resident:
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
        """See Source.counts."""
        return _doubling(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See Source.candidates."""

        def search(index: Any) -> Candidates:
            return _in_batches(index, queries, min(count, index.ntotal), self._batch)

        found = zip(self._threads.map(search, self._indexes), self._starts, strict=True)
        return merge([(scores, rows + start) for (scores, rows), start in found], count)


class Streamed:
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
            error, batch: as for Resident.
        """
        self.error = error
        self._vectors, self._shard_rows, self._indexes, self._batch = vectors, shard_rows, indexes, batch

    def counts(self, k: int) -> Iterator[int]:
        """See Source.counts."""
        return _doubling(k)

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """See Source.candidates. One pass over all rows, however many queries."""
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start, index in self._shards():
            scores, rows = _in_batches(index, queries, min(count, index.ntotal), self._batch)
            best = merge((best, (scores, rows + start)), count)
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


def merge(parts: Sequence[Candidates], count: int) -> Candidates:
    """The `count` highest of several lists of candidates, for each query."""
    scores = np.concatenate([part[0] for part in parts], axis=1)
    rows = np.concatenate([part[1] for part in parts], axis=1)
    if scores.shape[1] <= count:
        return scores, rows
    kept = np.argpartition(scores, -count, axis=1)[:, -count:]
    return np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)


def _first(k: int) -> int:
    """Enough to prove the hits wherever rows are not crowded: spare candidates cost little, asking again much."""
    return 2 * k + 32


def _doubling(k: int) -> Iterator[int]:
    """Twice as many each time, up to what FAISS selects on a GPU."""
    count = _first(k)
    while count < MOST_CANDIDATES:
        yield count
        count *= 2
    yield MOST_CANDIDATES


def _in_batches(index: Any, queries: NDArray[np.float32], count: int, batch: int) -> Candidates:
    """Search as many queries at a time as the memory plan counts on."""
    found = [index.search(queries[start : start + batch], count) for start in range(0, len(queries), batch)]
    return np.concatenate([scores for scores, _ in found]), np.concatenate([rows for _, rows in found])
