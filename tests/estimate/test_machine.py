"""The figures of this machine are measured. The tests check that a figure exists, not its value."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.assets import cache_dir
from runtime.engines.engine import read_engine, sidecar_path
from runtime.estimate import machine
from runtime.estimate.plan import Rate
from runtime.modelspec import load_spec
from runtime.search.embedder import QueryRules
from tests.support.model_files import copy_engine


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PHOTO_TEST_S", 0.1)
    monkeypatch.setattr(machine, "_PRODUCT_TEST_S", 0.05)


@pytest.mark.slow
def test_the_machine_is_measured(tmp_path: Path) -> None:
    sizes: list[float] = []

    def rate(flops: float) -> Rate:
        sizes.append(flops)
        return Rate(1.0, "guess", "")

    probe = machine.probe_machine(tmp_path, 64, rate, 10**9, "a GPU")
    assert sizes == [probe.flops]
    assert probe.flops > 1e8
    assert probe.read_bytes_s > 1e8
    assert probe.disk_bytes <= shutil.disk_usage(tmp_path).total
    assert 1e6 < probe.memory_bytes < 1e14
    assert (probe.gpu_bytes, probe.gpu) == (10**9, "a GPU")


@pytest.mark.slow
def test_photos_are_measured_through_all_stages(photos: Path, tiny_engine: Path) -> None:
    paths = [str(path).encode() for path in sorted(photos.rglob("*.jpg"))]
    for sample in (paths, paths[:1]):
        rate = machine.measure_photo_rate(QueryRules(read_engine(tiny_engine)), sample)
        assert rate.basis == "measured"
        assert rate.per_s is not None
        assert rate.per_s > 1
        assert "drawn at random" in rate.words


@pytest.mark.slow
def test_an_engine_only_rate_is_a_bound_and_marked_as_a_guess(tiny_engine: Path) -> None:
    rate = machine.measure_engine_rate(read_engine(tiny_engine), [])
    assert rate.basis == "measured"
    assert "engine alone" in rate.words
    guess = machine.guess_rate(90e9, "sface")
    assert (guess.basis, guess.per_s) == ("guess", pytest.approx(100))
    assert "facemill build-engine --model sface" in guess.words


def test_only_a_usable_engine_of_the_same_weights_is_measured(
    tiny_engine: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path))  # other tests leave such an engine in the cache of the session
    spec, folder = load_spec(str(tiny_model)), cache_dir("engines")
    assert machine.find_engine(spec) is None
    built = folder / "tiny.cpu-fp32.onnx"
    copy_engine(tiny_engine, built, model_sha256="0" * 64)
    assert machine.find_engine(spec) is None
    engine = copy_engine(tiny_engine, built)
    assert machine.find_engine(spec) == engine
    assert machine.find_engine(replace(spec, sha256="1" * 64)) is None
    sidecar_path(built).write_text("damaged")
    assert machine.find_engine(spec) is None


def test_timing_counts_completed_work() -> None:
    assert 0 < machine._calls_per_s(lambda: time.sleep(0.01)) <= 100


def test_cached_files_of_a_container_do_not_count_as_used_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("999000\n")
    (tmp_path / "memory.stat").write_text("anon 9000\nactive_file 400000\ninactive_file 90000\nshmem 1\n")
    assert machine.available_memory(tmp_path) == 491_000
    (tmp_path / "memory.max").write_text("max\n")
    unlimited = machine.available_memory(tmp_path)
    assert unlimited > 1_000_000
    assert abs(machine.available_memory(tmp_path / "none") - unlimited) < 1 << 30
