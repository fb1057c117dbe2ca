"""The index that answers a search: the choice of auto with its reason, and invalid options."""

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
def large_file(people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that auto treats as large, with an exact search of 1,000 ms."""
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    monkeypatch.setattr(choice, "_ESTIMATE_MARGIN", 1e9)
    with EmbeddingFile(people) as gallery, FlatIndex(gallery):
        save_latency(index_path(people), 1000.0)
    return people


def opened_kind(path: Path, *, k: int = 10, queries: int = 1, latency_ms: float = 100.0, index: str = "auto") -> str:
    targets = crowd(5, seed=40)
    with (
        EmbeddingFile(path) as gallery,
        open_index(gallery, "cpu", k=k, queries=queries, index=index, latency_ms=latency_ms) as opened,
    ):
        rows, _ = opened.search(targets, k)
        assert (opened.rows, opened.dimension) == (ROWS, 40)
    right = oracle(crowd(ROWS), targets, k)
    assert np.mean([len(set(a) & set(b)) / k for a, b in zip(rows, right, strict=True)]) >= 0.95
    return opened.facts.kind


def test_a_small_file_is_searched_exactly_for_any_latency(people: Path) -> None:
    assert opened_kind(people, latency_ms=1e-9) == "flat"
    assert not list(people.parent.glob("*.faiss-*"))


def test_auto_selects_exact_within_the_latency(large_file: Path) -> None:
    assert opened_kind(large_file, latency_ms=1000.0) == "flat"
    assert not codes_path(large_file, "ivf").exists()


@pytest.mark.slow
def test_auto_selects_the_smallest_index_beyond_the_latency(large_file: Path) -> None:
    assert opened_kind(large_file, latency_ms=999.0) == "ivf"
    assert not codes_path(large_file, "sq8").exists()
    modified_ns = codes_path(large_file, "ivf").stat().st_mtime_ns
    assert opened_kind(large_file, latency_ms=999.0) == "ivf"
    assert codes_path(large_file, "ivf").stat().st_mtime_ns == modified_ns


@pytest.mark.slow
def test_exact_search_is_measured_once(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    monkeypatch.setattr(choice, "MIN_RECALL", 1.01)  # so that the load of the machine does not decide the kind
    assert opened_kind(people, latency_ms=1e-6) == "flat"
    first = sidecar_path(index_path(people)).read_text()
    assert '"exact_ms"' in first
    assert opened_kind(people, latency_ms=1e-6) == "flat"
    assert sidecar_path(index_path(people)).read_text() == first


@pytest.mark.slow
def test_auto_selects_the_fastest_where_none_meets_the_latency(
    large_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert opened_kind(large_file, latency_ms=1e-6) in ("ivf", "sq8")
    assert len([line for line in caplog.messages if not missing_values(line, (0.99, "1e-06 ms"))]) == 2


@pytest.mark.slow
def test_auto_selects_exact_where_the_recall_is_too_low(
    large_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MIN_RECALL", 1.01)
    with caplog.at_level(logging.INFO):
        assert opened_kind(large_file) == "flat"
    assert_names(caplog.text, 1.01, "1000.0 ms")


def test_auto_selects_exact_where_no_index_can_be_stored(large_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    (large_file.parent / "people.h5.faiss-ivf.partial").mkdir()
    with caplog.at_level(logging.WARNING):
        assert opened_kind(large_file) == "flat"
    (warning,) = warnings_in(caplog)
    assert_names(warning, "people.h5")


def test_exact_search_in_memory_where_the_rows_cannot_be_stored(
    large_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index_path(large_file).unlink()
    (large_file.parent / "people.h5.faiss.partial").mkdir()
    with caplog.at_level(logging.WARNING):
        assert opened_kind(large_file) == "flat"
    assert len([line for line in warnings_in(caplog) if "memory" in line]) == 1
    assert not list(large_file.parent.glob("*.faiss-*"))


@pytest.mark.slow
def test_auto_selects_exact_for_too_many_hits(large_file: Path) -> None:
    assert opened_kind(large_file, k=1001) == "flat"
    assert opened_kind(large_file, k=1000) == "ivf"


@pytest.mark.slow
def test_auto_selects_the_same_index_for_one_query_and_many(large_file: Path) -> None:
    assert opened_kind(large_file, queries=1) == opened_kind(large_file, queries=10_000) == "ivf"


def test_a_certain_estimate_is_not_measured(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1000)
    assert opened_kind(people, latency_ms=100.0) == "flat"
    assert "exact_ms" not in sidecar_path(index_path(people)).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("index", ["flat", "sq8", "ivf"])
def test_a_named_index_is_used(people: Path, index: str) -> None:
    assert opened_kind(people, index=index, latency_ms=1e-6) == index
    assert codes_path(people, index).exists() == (index != "flat")


def test_invalid_options_are_refused(people: Path) -> None:
    with EmbeddingFile(people) as gallery:
        with raises(ConfigError, "tree", "auto", "flat", "ivf", "sq8"):
            open_index(gallery, k=1, queries=1, index="tree")
        for latency_ms in (0, -1, float("nan")):
            with raises(ConfigError, f"{latency_ms} ms"):
                open_index(gallery, k=1, queries=1, latency_ms=latency_ms)
        for device in ("gpu", "0"):
            with raises(ConfigError, "ivf", device, "--index flat"):
                open_index(gallery, device, k=1, queries=1, index="ivf")
