"""The build-engine command: output, refusals, INT8 calibration."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from runtime.engines.engine import read_engine
from tests.support.errors import USAGE, Values, assert_names, assert_refused
from tests.support.facemill_command import facemill
from tests.support.red_square_detector import save_red_squares


@pytest.mark.slow
def test_build_engine_prints_its_files_then_up_to_date(tiny_model: Path, tmp_path: Path) -> None:
    command = ("build-engine", "--model", tiny_model, "--backend", "cpu", "--output", tmp_path / "engines")
    first = facemill(*command)
    assert first.returncode == 0, first.stderr
    engine = tmp_path / "engines" / "tiny.cpu-fp32.onnx"
    assert f"engine:  {engine}\nsidecar: {engine}.json\n" in first.stdout
    assert "built:   there was no engine" in first.stdout
    assert "over 64 crops: minimum 1.000000" in first.stdout
    assert "identify nobody" in first.stdout
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "engines").iterdir()}
    again = facemill(*command)
    assert again.returncode == 0
    assert "\nup to date\n" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "engines").iterdir()} == written
    assert "built:   forced" in facemill(*command, "--force").stdout


@pytest.mark.slow
def test_json_is_one_line_that_names_the_sidecar(tiny_model: Path, tmp_path: Path) -> None:
    result = facemill("build-engine", "--model", tiny_model, "--batch", "1,2,4", "--output", tmp_path, "--json",
               "--backend", "cpu")  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    info = read_engine(Path(answer["engine"])).info
    assert (answer["built"], answer["profile"], answer["engine_sha256"]) == (True, [1, 2, 4], info.engine_sha256)
    assert Path(answer["sidecar"]).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["--batch", "1,2"], USAGE, ("--batch", "1,2")),
        (["--batch", "4,2,8"], USAGE, ("--batch", "4,2,8")),
        (["--backend", "openvino"], USAGE, ("--backend", "openvino")),
        (["--backend", "cpu", "--precision", "fp16"], "E-CONFIG", ("cpu", "fp16")),
        (["--backend", "cpu", "--compute-capability", "SM75"], "E-CONFIG", ("--backend tensorrt",)),
        (["--precision", "int8"], "E-OPTION", ("--calibration PHOTOS",)),
        (["--calibration", "photos", "--precision", "fp32"], "E-OPTION", ("--calibration", "int8", "auto")),
        (["--precision", "int8", "--calibration", "nowhere"], "E-SOURCE", ("nowhere",)),
        (
            ["--precision", "int8", "--calibration", ".", "--calibration-count", "10"],
            USAGE,
            ("--calibration-count", 10, 64),
        ),
    ],
)
def test_wrong_options_are_refused(
    tiny_model: Path, tmp_path: Path, arguments: list[str], code: str, values: Values
) -> None:
    result = facemill("build-engine", "--model", tiny_model, "--output", tmp_path, *arguments)
    assert_refused(result, code, *values)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_int8_engine_is_calibrated_on_the_given_photos(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    command = ("build-engine", "--model", tiny_model, "--backend", "cpu", "--output", tmp_path, "--precision",
               "int8", "--calibration", photos, "--calibration-count", 128)  # fmt: skip
    first = facemill(*command)
    assert first.returncode == 0, first.stderr
    assert_names(first.stderr, 128, 600)
    assert "what:    tiny, int8, onnxruntime" in first.stdout
    assert "\nint8:    calibrated on 128 crops, seed 0, sha256 " in first.stdout
    assert "over 32 crops: minimum 0.9" in first.stdout
    again = facemill(*command, "--json")
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    assert (answer["built"], answer["precision"], answer["parity_images"]) == (False, "int8", 32)
    assert "calibration was" in facemill(*command, "--calibration-seed", 1).stdout
    processed = facemill(
        "process", photos, "-o", tmp_path / "o.h5", "--engine", tmp_path / "tiny.cpu-int8.onnx", "--limit", 9
    )
    assert processed.returncode == 0, processed.stderr
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["embeddings"].shape == (9, 16)


def test_a_damaged_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_model.read_text())
    (tmp_path / "tiny.onnx").write_bytes((tiny_model.parent / "tiny.onnx").read_bytes()[:5000])
    result = facemill(
        "build-engine", "--model", tmp_path / "tiny.toml", "--output", tmp_path / "engines", "--backend", "cpu"
    )
    assert_refused(result, "E-MODEL", tmp_path / "tiny.onnx", "5,000 bytes")


def test_help_has_examples() -> None:
    result = facemill("build-engine", "--help")
    assert result.returncode == 0
    assert "facemill build-engine --backend tensorrt --batch 1,256,512" in result.stdout


@pytest.mark.slow
def test_calibrating_a_detector_needs_no_second_detector(photos: Path, tmp_path: Path) -> None:
    red = save_red_squares(tmp_path)
    command = ("build-engine", "--model", red, "--output", tmp_path, "--precision", "int8", "--calibration", photos,
               "--calibration-count", 64, "--align", "auto")  # fmt: skip
    result = facemill(*command, FACEMILL_MODELS=tmp_path, HTTPS_PROXY="http://127.0.0.1:9")
    assert_names(result.stderr, 64, 600)
    assert "Traceback" not in result.stderr
    refused = facemill(*command, "--detector", "yunet")
    assert_refused(refused, "E-OPTION", "--detector")
