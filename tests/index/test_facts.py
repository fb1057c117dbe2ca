"""What is said of an index."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from runtime.index.facts import IndexFacts, Measured

MEASURED = Measured(k=50, recall=0.9934, sample=200, effort=64, candidates=146, latency_ms=4.13)


def test_words() -> None:
    facts = IndexFacts("ivf", {"dimensions": 152, "lists": 4096, "bits": 4}, MEASURED, 180.2)
    assert str(facts) == (
        "ivf (152 dimensions, 4,096 lists, 64 probed, 146 re-ranked): recall@50 0.993 on 200 sampled rows, 4.1 ms; "
        "exact: 180.2 ms"
    )
    assert str(IndexFacts("sq8", {"dimensions": 152}, MEASURED)).startswith("sq8 (152 dimensions, 146 re-ranked): ")
    assert "16 links, queue of 64," in str(IndexFacts("hnsw", {"dimensions": 152, "links": 16}, MEASURED))
    assert str(IndexFacts("flat")) == "flat (exact)"
    assert str(IndexFacts("flat", exact_ms=180.2)) == "flat (exact): 180.2 ms"


def test_json() -> None:
    assert IndexFacts("flat").as_dict() == {"kind": "flat", "exact": True}
    found = IndexFacts("sq8", {"dimensions": 152}, MEASURED, 180.2).as_dict()
    assert found == {
        "kind": "sq8", "exact": False, "parameters": {"dimensions": 152}, "k": 50, "recall": 0.9934, "sample": 200,
        "effort": 64, "candidates": 146, "latency_ms": 4.13, "exact_ms": 180.2,
    }  # fmt: skip


def test_what_is_written_can_be_read_and_nothing_else() -> None:
    assert Measured.of(asdict(MEASURED)) == MEASURED
    for wrong in ({"k": 0}, {"recall": -0.1}, {"recall": float("nan")}, {"candidates": 49}, {"latency_ms": "soon"}):
        with pytest.raises(ValueError, match=r"measured|convert"):
            Measured.of({**asdict(MEASURED), **wrong})
    with pytest.raises(KeyError):
        Measured.of({"k": 5})
