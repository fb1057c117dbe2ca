"""The plan command: its table, its JSON, its refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import facemill


@pytest.mark.slow
def test_a_folder_of_photos_is_measured(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    result = facemill(
        "plan", photos, "--engine", tiny_engine, "--align", "none", "-o", tmp_path / "people.h5", "--json"
    )
    assert result.returncode == 0, result.stderr
    estimate = json.loads(result.stdout)
    expected = {"photographs": 600, "dimension": 16, "model": "tiny", "dtype": "float32", "faces": False, "longest": 11}
    assert {key: estimate[key] for key in expected} == expected
    time = estimate["embedding"]["time"]
    assert (time["basis"], time["unit"]) == ("measured", "s")
    assert 0 < time["value"] < 600
    assert "drawn at random" in time["words"]
    assert estimate["index"]["flat"]["value"] == 600 * 16 * 4
    assert estimate["fits"] is True
    machine = estimate["machine"]
    assert estimate["pairs"]["time"]["value"] == pytest.approx(600**2 * 16 / machine["flops"])
    assert estimate["search"]["exact"]["value"] == pytest.approx(600 * 64 / machine["read_bytes_s"])
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_text_output_for_a_count_of_photos(tiny_engine: Path, tmp_path: Path) -> None:
    options = ("--count", 4_000_000_000, "--engine", tiny_engine, "--align", "none", "--dimension", 512)
    result = facemill("plan", *options, "--gpu-memory", 6, "-o", tmp_path / "people.h5")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "4,000,000,000 aligned crops by tiny: 512 numbers each, float32"
    assert [line for line in lines if line[0] != " "][1:-1] == ["embedding", "index", "search", "pairs", "gpu"]
    assert "by the engine alone" in result.stdout
    assert "does not fit: " in result.stdout
    assert "streamed" in result.stdout
    assert lines[-1].startswith("problems: embedding (disk while it runs)")
    assert "\x1b" not in result.stdout  # only terminals get colours


@pytest.mark.slow
def test_json_for_a_planned_gpu(tiny_engine: Path) -> None:
    options = ("--count", 1_000_000, "--engine", tiny_engine, "--align", "none", "--dimension", 512, "--gpu-memory", 6)
    estimate = json.loads(facemill("plan", *options, "--json").stdout)
    assert estimate["machine"]["gpu_bytes"] == 6e9
    assert "FP32" in estimate["gpu"]["search memory"]["words"]


@pytest.mark.slow
def test_without_an_engine_plan_guesses_and_builds_none(tmp_path: Path) -> None:
    result = facemill("plan", "--count", 1000, "--model", "sface", "--align", "none", FACEMILL_CACHE=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "guess: " in result.stdout
    assert "facemill build-engine --model sface" in result.stdout
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        ((), USAGE, ("PHOTOS", "--count")),
        (("in", "--count", "5"), USAGE, ("PHOTOS", "--count")),
        (("--count", "0"), USAGE, ("--count", 0)),
        (("--count", "5", "--gpu-memory", "0"), USAGE, ("--gpu-memory", 0.0)),
        (("--count", "5", "--engine", "a.onnx", "--model", "sface"), USAGE, ("--engine", "--model")),
        (("--count", "5", "--model", "nobody"), "E-MODEL", ("nobody",)),
        (("--count", "5", "--engine", "no.onnx"), "E-ENGINE", ("no.onnx", "facemill build-engine")),
        (("--count", "5", "-o", "no/such/folder/a.h5"), "E-CONFIG", ("no/such/folder", "-o")),
        (("no-such-folder",), "E-SOURCE", ("no-such-folder",)),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], code: str, values: Values) -> None:
    result = facemill("plan", *options)
    assert_refused(result, code, *values)
    assert result.stdout == ""


def test_help_has_examples() -> None:
    assert "Examples:" in facemill("plan", "--help").stdout
