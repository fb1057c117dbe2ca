"""The kernel benchmark, run with CPU kernels, and its error on a machine without a GPU."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_kernels
import pytest
from gpu_kernels import Bench, Case

from runtime.cuda.device import find_gpu
from tests.support.cuda_stand_in import ShimDriver
from tests.support.facemill_command import ROOT


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the kernels cannot be compiled for the CPU")
    for name, value in (("BATCH", 2), ("SIZE", 16), ("ROUNDS", 2), ("COPY_BYTES", 1 << 16)):
        monkeypatch.setattr(gpu_kernels, name, value)
    with ShimDriver(tmp_path) as driver, Bench(driver) as bench:
        yield bench


def options(folder: Path, seconds: float = math.inf) -> argparse.Namespace:
    return argparse.Namespace(out=folder / "results", seconds=seconds)


def read_results(folder: Path) -> Any:
    return json.loads((folder / "results" / "gpu_kernels.json").read_text("utf-8"))


@pytest.mark.slow
def test_every_kernel_is_timed_and_each_figure_is_written_at_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: list[int] = []
    cases = gpu_kernels.kernel_cases

    def and_more(bench: Bench) -> list[Case]:
        count = lambda: counts.append(len(read_results(tmp_path)["rows"]))  # noqa: E731
        return [*cases(bench), Case("counts the rows", count), Case("breaks", lambda: 1 / 0)]

    monkeypatch.setattr(gpu_kernels, "kernel_cases", and_more)
    assert gpu_kernels.measure_all(bench, options(tmp_path)) == ["Our kernels: failed: division by zero"]
    assert counts == 5 * [5]
    results = read_results(tmp_path)
    assert [row["what"].split(",")[0] for row in results["rows"]] == [
        "copy on the device", "preprocess.cu", "preprocess.cu", "align.cu", "align.cu", "counts the rows",
    ]  # fmt: skip
    assert all(row["ms"] > 0 for row in results["rows"])
    assert results["rows"][0]["of the copy's speed"] == 1
    assert results["rows"][-1]["GB/s"] == ""
    assert "Our kernels: failed: division by zero" in results["notes"]
    printed = capsys.readouterr()
    assert len([line for line in printed.out.splitlines() if line.startswith("| ")]) == 7
    assert "Traceback" in printed.err


@pytest.mark.slow
def test_no_kernel_starts_after_the_time_limit(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, *[9.0] * 9])
    monkeypatch.setattr(gpu_kernels, "elapsed_s", lambda: next(now))
    assert gpu_kernels.measure_all(bench, options(tmp_path, seconds=5)) == []
    results = read_results(tmp_path)
    assert [row["what"] for row in results["rows"]] == ["copy on the device", "preprocess.cu, 2 of 16x16"]
    skipped = [note.split(":")[0] for note in results["notes"] if "left out: the 5 s of --seconds" in note]
    assert skipped == ["preprocess.cu, 2 of 300x400", "align.cu, 2 at a scale of 1.4", "align.cu, 2 at a scale of 2.8"]


@pytest.mark.slow
@pytest.mark.skipif(find_gpu() is not None, reason="there is an NVIDIA GPU")
def test_without_a_gpu_the_benchmark_prints_a_one_line_error(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_kernels.py"), "--out", str(tmp_path / "results")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert result.stderr.startswith("gpu_kernels.py needs an NVIDIA GPU")
    assert not (tmp_path / "results").exists()
