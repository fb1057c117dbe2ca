"""The truth that an index is measured by, against NumPy; and how far a long pass is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.index.exactrows import ExactRows
from runtime.index.indexfile import ensure_index
from runtime.index.rerank import Reranked
from runtime.index.tune import Truth, find_truth
from runtime.storage import file as file_module
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import oracle, write_gallery


def truth_of(path: Path, k: int) -> Truth:
    with EmbeddingFile(path) as gallery:
        index = ensure_index(gallery)
        assert index is not None
        with ExactRows(index, gallery.rows, gallery.dimension) as exact:
            return find_truth(gallery, Reranked(None, "sq8", exact), k)


def test_the_truth_is_numpys_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = crowd(1000)
    path = write_gallery(tmp_path / "people.h5", vectors)
    whole = truth_of(path, 12)
    monkeypatch.setattr(file_module, "_BLOCK_BYTES", 40 * 4 * 7)  # seven rows: fewer than the hits
    small = truth_of(path, 12)
    expected = oracle(vectors, whole.queries, 13)
    for i, (row, right) in enumerate(zip(whole.asked, expected, strict=True)):
        others = sorted(set(right.tolist()) - {row})
        assert sorted(whole.right[i].tolist()) == sorted(small.right[i].tolist()) == others
    np.testing.assert_array_equal(whole.floors, small.floors)
    np.testing.assert_array_equal(whole.queries, vectors[whole.asked])


def test_recall_counts_neither_the_row_itself_nor_more_than_there_are() -> None:
    truth = Truth(np.array([7]), np.zeros((1, 4), np.float32), np.array([0.5], np.float32), (np.array([1, 2]),), 2)

    def recall(rows: list[int], scores: list[float]) -> float:
        return truth.recall(np.array([rows]), np.array([scores], np.float32))

    assert recall([7, 1, 2], [1.0, 0.6, 0.5]) == 1
    assert recall([7, 1, 3], [1.0, 0.6, 0.4]) == 0.5
    assert recall([1, 2, 5], [0.6, 0.5, 0.5]) == 1
    assert recall([7, 9, -1], [1.0, 0.4, -np.inf]) == 0
    assert recall([7, 5, -1], [1.0, 0.5, -np.inf]) == 0.5  # as good as the second best
