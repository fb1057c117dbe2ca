"""Exact rows by number, and concurrent searches of codes with different settings."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.index.indexfile import ensure_index
from runtime.index.kinds import train
from runtime.index.rerank import ExactRows, Reranked, faiss_threads
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import unit_rows, write_gallery
from tests.support.errors import raises


def test_rows_come_in_the_requested_order(tmp_path: Path) -> None:
    with EmbeddingFile(write_gallery(tmp_path / "people.h5", unit_rows(500))) as gallery:
        path = ensure_index(gallery)
        assert path is not None
        with ExactRows(path, 500, 32) as exact:
            numbers = np.array([499, 0, 3, 3, 250])
            np.testing.assert_array_equal(exact.reconstruct_batch(numbers), unit_rows(500)[numbers])
            assert exact.reconstruct_batch(np.empty(0, np.int64)).shape == (0, 32)
            os.truncate(path, 20_000)
            with raises(StorageError, path):
                exact.reconstruct_batch(np.array([499]))


def test_a_thread_limit_applies_only_to_the_calling_thread() -> None:
    """Two threads are in the block at the same time with different limits; a third has none."""
    usual = faiss.omp_get_max_threads()
    inside, checked = threading.Barrier(3, timeout=30), threading.Barrier(3, timeout=30)

    def threads_with(count: int | None) -> tuple[int, int]:
        if count is None:
            inside.wait()
            within = faiss.omp_get_max_threads()
            checked.wait()
        else:
            with faiss_threads(count):
                inside.wait()
                within = faiss.omp_get_max_threads()
                checked.wait()
        return within, faiss.omp_get_max_threads()

    with ThreadPoolExecutor(3) as pool:
        limits = list(pool.map(threads_with, (1, usual + 3, None)))
    assert limits == [(1, usual), (usual + 3, usual), (usual, usual)]
    assert faiss.omp_get_max_threads() == usual


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ivf", "sq8"])
def test_concurrent_searches_equal_sequential_searches(tmp_path: Path, kind: str) -> None:
    """One query (one thread) and many queries (all threads) do not see each other's settings."""
    rows = crowd(3000)
    index, parameters = train(kind, rows, len(rows))
    index.add(rows)
    with EmbeddingFile(write_gallery(tmp_path / "people.h5", rows)) as gallery:
        path = ensure_index(gallery)
        assert path is not None
        with ExactRows(path, *rows.shape) as exact:
            reranked = Reranked(index, kind, exact)
            jobs = [(rows[i : i + count], effort) for i in range(20) for count, effort in ((1, 1), (40, 2), (7, 30))]

            def search(job: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
                return reranked.search(job[0], 5, job[1], 60)

            expected = list(map(search, jobs))
            with ThreadPoolExecutor(4) as pool:
                for answer, right in zip(pool.map(search, jobs), expected, strict=True):
                    np.testing.assert_array_equal(answer[0], right[0])
                    np.testing.assert_array_equal(answer[1], right[1])
            if kind == "ivf":
                assert parameters["lists"] > 30
                assert (expected[0][0] != expected[-1][0][:1]).any()  # the effort really changes the answers
