"""Which index answers: what auto decides and why, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import ConfigError
from runtime.index import open as choice
from runtime.index.codesfile import codes_path
from runtime.index.flat import FlatIndex
from runtime.index.indexfile import index_path, save_latency
from runtime.index.open import open_index
from runtime.index.sidecar import sidecar_path
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import oracle, write_gallery
from tests.support.errors import assert_names, missing_values, raises, warnings_in

ROWS = 2000


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "people.h5", crowd(ROWS))


@pytest.fixture
def large(people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that auto takes for a large one, in which exact search takes 1,000 ms."""
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    monkeypatch.setattr(choice, "_ESTIMATE_MARGIN", 1e9)
    with EmbeddingFile(people) as gallery, FlatIndex(gallery):
        save_latency(index_path(people), 1000.0)
    return people


def kind(path: Path, *, k: int = 10, queries: int = 1, latency_ms: float = 100.0, index: str = "auto") -> str:
    asked = crowd(5, seed=40)
    with (
        EmbeddingFile(path) as gallery,
        open_index(gallery, "cpu", k=k, queries=queries, index=index, latency_ms=latency_ms) as opened,
    ):
        rows, _ = opened.search(asked, k)
        assert (opened.rows, opened.dimension) == (ROWS, 40)
    right = oracle(crowd(ROWS), asked, k)
    assert np.mean([len(set(a) & set(b)) / k for a, b in zip(rows, right, strict=True)]) >= 0.95
    return opened.facts.kind


def test_a_small_file_is_searched_exactly_however_short_the_latency(people: Path) -> None:
    assert kind(people, latency_ms=1e-9) == "flat"
    assert not list(people.parent.glob("*.faiss-*"))


def test_exact_while_it_keeps_to_the_latency(large: Path) -> None:
    assert kind(large, latency_ms=1000.0) == "flat"
    assert not codes_path(large, "ivf").exists()


def test_the_smallest_index_once_it_does_not(large: Path) -> None:
    assert kind(large, latency_ms=999.0) == "ivf"
    assert not codes_path(large, "sq8").exists()
    made = codes_path(large, "ivf").stat().st_mtime_ns
    assert kind(large, latency_ms=999.0) == "ivf"
    assert codes_path(large, "ivf").stat().st_mtime_ns == made


def test_exact_search_is_measured_once_and_kept(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    monkeypatch.setattr(choice, "MIN_RECALL", 1.01)  # so that no measured time of a busy machine decides the kind
    assert kind(people, latency_ms=1e-6) == "flat"
    first = sidecar_path(index_path(people)).read_text()
    assert '"exact_ms"' in first
    assert kind(people, latency_ms=1e-6) == "flat"
    assert sidecar_path(index_path(people)).read_text() == first


def test_the_quickest_where_none_keeps_to_the_latency(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert kind(large, latency_ms=1e-6) in ("ivf", "sq8")
    assert len([line for line in caplog.messages if not missing_values(line, (0.99, "1e-06 ms"))]) == 2


def test_exact_with_the_reason_where_none_finds_enough(
    large: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MIN_RECALL", 1.01)
    with caplog.at_level(logging.INFO):
        assert kind(large) == "flat"
    assert_names(caplog.text, 1.01, "1000.0 ms")


def test_exact_with_the_reason_where_no_index_can_be_kept(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    (large.parent / "people.h5.faiss-ivf.partial").mkdir()
    with caplog.at_level(logging.WARNING):
        assert kind(large) == "flat"
    (warning,) = warnings_in(caplog)
    assert_names(warning, "people.h5")


def test_exact_in_memory_where_not_even_the_rows_can_be_kept(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    index_path(large).unlink()
    (large.parent / "people.h5.faiss.partial").mkdir()
    with caplog.at_level(logging.WARNING):
        assert kind(large) == "flat"
    assert len([line for line in warnings_in(caplog) if "memory" in line]) == 1
    assert not list(large.parent.glob("*.faiss-*"))


def test_more_hits_than_codes_are_good_for(large: Path) -> None:
    assert kind(large, k=1001) == "flat"
    assert kind(large, k=1000) == "ivf"


def test_the_same_index_answers_one_query_and_many(large: Path) -> None:
    assert kind(large, queries=1) == kind(large, queries=10_000) == "ivf"


def test_an_estimate_that_is_sure_is_not_measured(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    assert kind(people, latency_ms=100.0) == "flat"
    assert "exact_ms" not in sidecar_path(index_path(people)).read_text()


@pytest.mark.parametrize("index", ["flat", "sq8", "ivf"])
def test_a_named_index_is_the_one_that_answers(people: Path, index: str) -> None:
    assert kind(people, index=index, latency_ms=1e-6) == index
    assert codes_path(people, index).exists() == (index != "flat")


def test_refusals(people: Path) -> None:
    with EmbeddingFile(people) as gallery:
        with raises(ConfigError, "tree", "auto", "flat", "ivf", "sq8"):
            open_index(gallery, k=1, queries=1, index="tree")
        for latency_ms in (0, -1, float("nan")):
            with raises(ConfigError, f"{latency_ms} ms"):
                open_index(gallery, k=1, queries=1, latency_ms=latency_ms)
        for device in ("gpu", "0"):
            with raises(ConfigError, "ivf", device, "--index flat"):
                open_index(gallery, device, k=1, queries=1, index="ivf")
