"""The models command: list, verify, fetch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill


@pytest.fixture
def model_folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Make a FACEMILL_MODELS folder with one intact model."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model.parent, folder)
    return folder


def test_list_shows_every_model_with_its_licence(model_folder: Path) -> None:
    result = facemill("models", "list", FACEMILL_MODELS=model_folder)
    assert result.returncode == 0, result.stderr
    assert "non-commercial research only" in result.stdout
    assert f"{model_folder / 'tiny.onnx'}" in result.stdout
    lines = facemill("models", "list", "--json", FACEMILL_MODELS=model_folder).stdout.splitlines()
    models = {json.loads(line)["name"]: json.loads(line) for line in lines}
    assert models["tiny"]["path"] == str(model_folder / "tiny.onnx")
    assert models["w600k_mbf"]["path"] is None
    for name in ("facemill-512", "facemill-det"):
        assert models[name]["path"] == str(ROOT / "models" / f"{name}.onnx")


def test_verify_reports_damaged_and_missing_models(model_folder: Path) -> None:
    assert facemill("models", "verify", "tiny", FACEMILL_MODELS=model_folder).returncode == 0
    assert facemill("models", "verify", "sface", FACEMILL_MODELS=model_folder).returncode == 1
    (model_folder / "face_recognition_sface_2021dec.onnx").write_bytes(b"damaged")
    result = facemill("models", "verify", FACEMILL_MODELS=model_folder)
    assert result.returncode == 1
    assert "sface              WRONG" in result.stdout
    assert "tiny               right" in result.stdout
    assert "facemill-512       right" in result.stdout
    assert "facemill-det       right" in result.stdout


def test_fetch_prints_the_path_of_a_local_model(model_folder: Path) -> None:
    result = facemill("models", "fetch", "tiny", FACEMILL_MODELS=model_folder)
    assert (result.returncode, result.stdout.strip()) == (0, str(model_folder / "tiny.onnx"))
    result = facemill("models", "fetch", "mobilefacenet-128", FACEMILL_MODELS=model_folder)
    assert_refused(result, "E-MODEL-UNAVAILABLE", "mobilefacenet-128")
