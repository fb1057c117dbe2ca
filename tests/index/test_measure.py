"""The ground truth of an index, compared with NumPy, and the reported facts of an index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from runtime.index.indexfile import ensure_index
from runtime.index.measure import IndexFacts, Measured, Truth, find_truth
from runtime.index.rerank import ExactRows, Reranked
from runtime.storage import file as file_module
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import oracle, write_gallery

MEASURED = Measured(k=50, recall=0.9934, sample=200, effort=64, candidates=146, latency_ms=4.13)


def test_facts_as_text() -> None:
    facts = IndexFacts("ivf", {"dimensions": 152, "lists": 4096, "bits": 4}, MEASURED, 180.2)
    assert str(facts) == (
        "ivf (152 dimensions, 4,096 lists, 64 probed, 146 re-ranked): recall@50 0.993 on 200 sampled rows, 4.1 ms; "
        "exact: 180.2 ms"
    )
    assert str(IndexFacts("sq8", {"dimensions": 152}, MEASURED)).startswith("sq8 (152 dimensions, 146 re-ranked): ")
    assert str(IndexFacts("flat")) == "flat (exact)"
    assert str(IndexFacts("flat", exact_ms=180.2)) == "flat (exact): 180.2 ms"


def test_facts_as_json() -> None:
    assert IndexFacts("flat").as_dict() == {"kind": "flat", "exact": True}
    facts = IndexFacts("sq8", {"dimensions": 152}, MEASURED, 180.2).as_dict()
    assert facts == {
        "kind": "sq8", "exact": False, "parameters": {"dimensions": 152}, "k": 50, "recall": 0.9934, "sample": 200,
        "effort": 64, "candidates": 146, "latency_ms": 4.13, "exact_ms": 180.2,
    }  # fmt: skip


def test_facts_survive_a_round_trip_and_others_are_refused() -> None:
    assert Measured.of(asdict(MEASURED)) == MEASURED
    for wrong in ({"k": 0}, {"recall": -0.1}, {"recall": float("nan")}, {"candidates": 49}, {"latency_ms": "soon"}):
        with pytest.raises(ValueError, match=r"measured|convert"):
            Measured.of({**asdict(MEASURED), **wrong})
    with pytest.raises(KeyError):
        Measured.of({"k": 5})


def truth_of(path: Path, k: int) -> Truth:
    with EmbeddingFile(path) as gallery:
        index = ensure_index(gallery)
        assert index is not None
        with ExactRows(index, gallery.rows, gallery.dimension) as exact:
            return find_truth(gallery, Reranked(None, "sq8", exact), k)


@pytest.mark.slow
def test_the_ground_truth_equals_numpy_for_any_block_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = crowd(1000)
    path = write_gallery(tmp_path / "people.h5", vectors)
    truth = truth_of(path, 12)
    monkeypatch.setattr(file_module, "_BLOCK_BYTES", 40 * 4 * 7)  # seven rows: fewer than the hits
    small = truth_of(path, 12)
    expected = oracle(vectors, truth.queries, 13)
    for i, (row, right) in enumerate(zip(truth.sample, expected, strict=True)):
        neighbours = sorted(set(right.tolist()) - {row})
        assert sorted(truth.right[i].tolist()) == sorted(small.right[i].tolist()) == neighbours
    np.testing.assert_array_equal(truth.floors, small.floors)
    np.testing.assert_array_equal(truth.queries, vectors[truth.sample])


def test_recall_excludes_the_row_itself_and_missing_rows() -> None:
    truth = Truth(np.array([7]), np.zeros((1, 4), np.float32), np.array([0.5], np.float32), (np.array([1, 2]),), 2)

    def recall(rows: list[int], scores: list[float]) -> float:
        return truth.recall(np.array([rows]), np.array([scores], np.float32))

    assert recall([7, 1, 2], [1.0, 0.6, 0.5]) == 1
    assert recall([7, 1, 3], [1.0, 0.6, 0.4]) == 0.5
    assert recall([1, 2, 5], [0.6, 0.5, 0.5]) == 1
    assert recall([7, 9, -1], [1.0, 0.4, -np.inf]) == 0
    assert recall([7, 5, -1], [1.0, 0.5, -np.inf]) == 0.5  # ties with the second best
