"""The benchmark of the kernels, on kernels that run on the CPU, and where there is no GPU."""

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
    with Bench(ShimDriver(tmp_path)) as bench:
        yield bench


def options(folder: Path, seconds: float = math.inf) -> argparse.Namespace:
    return argparse.Namespace(model="random-512", data=folder, out=folder / "results", seconds=seconds)


def written(folder: Path) -> Any:
    return json.loads((folder / "results" / "gpu_kernels.json").read_text("utf-8"))


def test_every_kernel_is_timed_and_each_figure_is_kept_at_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def plans(*arguments: object) -> list[Case]:
        seen.append(len(written(tmp_path)["rows"]))
        return [Case("a batch", lambda: seen.append(0)), Case("one that breaks", lambda: 1 / 0)]

    monkeypatch.setattr(gpu_kernels, "plan_cases", plans)
    assert gpu_kernels.measure_all(bench, options(tmp_path)) == ["The plans: failed: division by zero"]
    assert seen == [8] + 5 * [0]
    found = written(tmp_path)
    assert [row["what"].split(",")[0] for row in found["rows"]] == [
        "copy on the device", "preprocess.cu", "preprocess.cu", *4 * ["align.cu"], "l2norm.cu", "a batch",
    ]  # fmt: skip
    assert all(row["ms"] > 0 for row in found["rows"])
    assert found["rows"][0]["of the copy's speed"] == 1
    assert found["rows"][-1]["GB/s"] == ""
    assert "The plans: failed: division by zero" in found["notes"]
    printed = capsys.readouterr()
    assert len([line for line in printed.out.splitlines() if line.startswith("| ")]) == 10
    assert "Traceback" in printed.err


def test_nothing_is_begun_once_its_time_is_over(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, *[9.0] * 9])
    monkeypatch.setattr(gpu_kernels, "elapsed_s", lambda: next(now))
    assert gpu_kernels.measure_all(bench, options(tmp_path, seconds=5)) == []
    found = written(tmp_path)
    assert [row["what"] for row in found["rows"]] == ["copy on the device", "preprocess.cu, 2 of 16x16 to FP16"]
    left = [note.split(":")[0] for note in found["notes"] if "left out: the 5 s of --seconds" in note]
    assert left == [
        "preprocess.cu, 2 of 300x400 to FP16",
        *(f"align.cu, 2 at a scale of {scale} to {kind}" for scale in (1.4, 2.8) for kind in ("FP16", "bytes")),
        "l2norm.cu, 2 x 512 from FP16",
        "The plans",
    ]


@pytest.mark.skipif(find_gpu() is not None, reason="there is an NVIDIA GPU")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_kernels.py"), "--out", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert done.stderr.startswith("gpu_kernels.py needs an NVIDIA GPU")
    assert not (tmp_path / "results").exists()
