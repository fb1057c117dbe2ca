"""The GPU search benchmark, on a CPU stand-in with few rows, and its error on a machine without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import search_gpu
from numpy.typing import NDArray

from runtime.index.exact import CandidateSource
from runtime.index.gpu import count_gpus
from runtime.index.memoryplan import MemoryPlan
from tests.index.test_sources import oracle, unit_rows
from tests.support.facemill_command import ROOT


def run_benchmark(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, object]:
    out = ["--out", str(folder / "results")]
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["search_gpu.py", "--device", "cpu", "--runs", "2", *out, *arguments])
    search_gpu.main()
    results: dict[str, object] = json.loads((folder / "results" / "search_gpu_stand_in.json").read_text("utf-8"))
    return results


@pytest.mark.slow
def test_every_placement_is_measured_and_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run_benchmark(monkeypatch, tmp_path, "--rows", "9000", "--dimension", "32", "--queries", "20", "-k", "10")
    rows = results["rows"]
    assert isinstance(rows, list)
    assert [row["rows are"] for row in rows] == [
        "FP16 on the GPU",
        "FAISS on the CPU",
        "FP32 on the GPU",
        "FP32 streamed",
    ]
    for row in rows:
        assert row["recall"] == 1
        assert row["same rows"] == "20 of 20"
        assert row["candidates alone ms"] > 0
        assert row["slowest ms"] >= row["one query ms"] > 0
        assert row["asked again"] == 0
        assert row["full passes"] < 20
    assert rows[1]["faster than the CPU"] == 1
    assert rows[0]["faster than the CPU"] == rows[1]["one query ms"] / rows[0]["one query ms"]
    assert [row["GB there"] for row in rows[:3]] == pytest.approx([9000 * 32 * size * 1e-9 for size in (2, 4, 4)])
    assert "--device cpu" in str(results["command"])
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("| ")]) == 5  # a single table after repeated writes
    assert sorted(path.suffix for path in (tmp_path / "results").iterdir()) == [".json", ".md"]
    table = (tmp_path / "results" / "search_gpu_stand_in.md").read_text("utf-8")
    assert "| FP16 on the GPU |" in table
    assert "GPU: none, FAISS on the CPU in its place" in table


@pytest.mark.gpu
def test_the_benchmark_runs_on_a_gpu(tmp_path: Path) -> None:
    if not count_gpus():
        pytest.skip("FAISS sees no NVIDIA GPU, or is built without GPU support")
    size = ["--rows", "9000", "--dimension", "32", "--queries", "20", "-k", "10", "--runs", "2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "search_gpu.py"), *size, "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "search_gpu.json").read_text("utf-8"))["rows"]
    assert [row["same rows"] for row in rows] == ["20 of 20"] * 4


@pytest.mark.slow
def test_a_placement_that_does_not_fit_is_recorded_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run_benchmark(
        monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "600", "--streamed-gb", "0.1"
    )
    rows = results["rows"]
    assert isinstance(rows, list)
    assert [row["rows are"] for row in rows] == ["FP16 on the GPU", "FAISS on the CPU", "FP32 on the GPU"]
    assert any("FP32 streamed: not measured: the GPU has 0.10 GB free" in note for note in results["notes"])  # type: ignore[attr-defined]
    assert "- FP32 streamed: not measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_chunked_gpu_search_is_compared_with_a_single_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.index.memoryplan._PIECE_ROWS", 100)
    results = run_benchmark(monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "5")
    rows = results["rows"]
    assert isinstance(rows, list)
    assert [row["rows are"] for row in rows][2:] == ["FP32 on the GPU", "FP16 in one index", "FP32 streamed"]


def test_a_stopped_benchmark_keeps_its_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, measures = search_gpu.measure, iter(range(3))

    def stopped(*arguments: object) -> object:
        written = json.loads((tmp_path / "results" / "search_gpu_stand_in.json").read_text("utf-8"))
        turn = next(measures)
        assert [row["rows are"] for row in written["rows"]] == ["FP16 on the GPU", "FAISS on the CPU"][:turn]
        if turn == 2:
            raise KeyboardInterrupt
        return right(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(search_gpu, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "5")


def test_no_placement_starts_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = search_gpu.measure

    def slow(*arguments: object) -> object:
        monkeypatch.setattr(search_gpu, "elapsed_s", lambda: 51.0)
        return right(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(search_gpu, "elapsed_s", lambda: 49.0)
    monkeypatch.setattr(search_gpu, "measure", slow)
    results = run_benchmark(monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "5", "--seconds", "50")
    (row,) = results["rows"]  # type: ignore[misc]
    assert row["rows are"] == "FP16 on the GPU"
    assert row["faster than the CPU"] == ""
    for where in ("FAISS on the CPU", "FP32 on the GPU", "FP32 streamed"):
        assert f"{where}: left out: the 50 s of --seconds were over" in results["notes"]  # type: ignore[operator]


def test_generated_rows_are_clustered_unit_vectors_with_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_gpu, "_BLOCK", 200)

    def generate(seed: int) -> NDArray[np.float32]:
        host = search_gpu.make_host_index(503, 64, seed)
        rows: NDArray[np.float32] = search_gpu.host_vectors(host).copy()
        return rows

    rows = generate(3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[301], rows[300])
    cosines = rows @ rows.T
    assert cosines[10:15, 10:15].min() > 0.5 > np.abs(cosines[10:15, 15:]).max()
    np.testing.assert_array_equal(generate(3), rows)
    assert not np.array_equal(generate(4), rows)


def test_a_wrong_answer_fails_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = search_gpu.exact_top_k

    def wrong(*arguments: object) -> object:
        rows, scores = right(*arguments)  # type: ignore[arg-type]
        rows[0, 0] = (rows[0, 0] + 1) % 500
        return rows, scores

    monkeypatch.setattr(search_gpu, "exact_top_k", wrong)
    with pytest.raises(SystemExit, match=r"FP16 on the GPU: [^;]*NumPy[^;]*; .*FP32 streamed: [^;]*NumPy"):
        run_benchmark(monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "5")


def test_a_failing_placement_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = search_gpu.make_stand_in

    def breaks(plan: MemoryPlan, host: object) -> CandidateSource:
        if plan.placement == "fp16":
            raise RuntimeError("a wrong argument")
        return right(plan, host)

    monkeypatch.setattr(search_gpu, "make_stand_in", breaks)
    with pytest.raises(SystemExit, match="FP16 on the GPU: failed: a wrong argument"):
        run_benchmark(monkeypatch, tmp_path, "--rows", "500", "--dimension", "8", "-k", "5")
    written = json.loads((tmp_path / "results" / "search_gpu_stand_in.json").read_text("utf-8"))
    assert [row["rows are"] for row in written["rows"]] == ["FAISS on the CPU", "FP32 on the GPU", "FP32 streamed"]
    assert "FP16 on the GPU: failed: a wrong argument" in written["notes"]
    assert "Traceback" in capsys.readouterr().err


def test_the_oracle_equals_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_gpu, "_BLOCK", 70)
    vectors = unit_rows(500)
    vectors[100:150] = vectors[3]
    queries = np.concatenate([vectors[:4], unit_rows(3, seed=1)])
    np.testing.assert_array_equal(search_gpu.numpy_rows(vectors, queries, 30), oracle(vectors, queries, 30)[0])


@pytest.mark.slow
@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU that FAISS sees")
def test_without_a_gpu_the_benchmark_prints_a_one_line_error() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "search_gpu.py")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("search_gpu.py needs a GPU: ")
