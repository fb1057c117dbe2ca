"""The plan command: a table, JSON, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import facemill


def test_photographs_that_are_here_are_measured(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    done = facemill("plan", photos, "--engine", tiny_engine, "--align", "none", "-o", tmp_path / "people.h5", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {"photographs": 600, "dimension": 16, "model": "tiny", "dtype": "float32", "faces": False, "longest": 11}
    assert {key: found[key] for key in expected} == expected
    time = found["embedding"]["time"]
    assert (time["basis"], time["unit"]) == ("measured", "s")
    assert 0 < time["value"] < 600
    assert "drawn at random" in time["words"]
    assert found["index"]["flat"]["value"] == 600 * 16 * 4
    assert found["fits"] is True
    machine = found["machine"]
    assert found["pairs"]["time"]["value"] == pytest.approx(600**2 * 16 / machine["flops"])
    assert found["search"]["exact"]["value"] == pytest.approx(600 * 64 / machine["read_bytes_s"])
    assert os.listdir(tmp_path) == []


def test_a_job_that_is_far_away_in_words(tiny_engine: Path, tmp_path: Path) -> None:
    options = ("--count", 4_000_000_000, "--engine", tiny_engine, "--align", "none", "--dimension", 512)
    done = facemill("plan", *options, "--gpu-memory", 6, "-o", tmp_path / "people.h5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "4,000,000,000 aligned crops by tiny: 512 numbers each, float32"
    assert [line for line in lines if line[0] != " "][1:-1] == ["embedding", "index", "search", "pairs", "gpu"]
    assert "by the engine alone" in done.stdout
    assert "does not fit: " in done.stdout
    assert "streamed" in done.stdout
    assert lines[-1].startswith("problems: embedding (disk while it runs)")
    assert "\x1b" not in done.stdout  # red is for terminals


def test_json_of_a_gpu_to_be(tiny_engine: Path) -> None:
    options = ("--count", 1_000_000, "--engine", tiny_engine, "--align", "none", "--dimension", 512, "--gpu-memory", 6)
    found = json.loads(facemill("plan", *options, "--json").stdout)
    assert found["machine"]["gpu_bytes"] == 6e9
    assert "FP32" in found["gpu"]["search memory"]["words"]


def test_without_an_engine_it_is_a_guess_and_none_is_built(tmp_path: Path) -> None:
    done = facemill("plan", "--count", 1000, "--model", "sface", "--align", "none", FACEMILL_CACHE=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "guess: " in done.stdout
    assert "facemill build-engine --model sface" in done.stdout
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
def test_mistakes_get_words(options: tuple[str, ...], code: str, values: Values) -> None:
    done = facemill("plan", *options)
    assert_refused(done, code, *values)
    assert done.stdout == ""


def test_help_has_examples() -> None:
    assert "Examples:" in facemill("plan", "--help").stdout
