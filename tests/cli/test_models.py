"""`facemill models`, run as a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    """A FACEMILL_MODELS folder with one model, whole."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model.parent, folder)
    return folder


def test_list_shows_every_model_with_its_licence(own: Path) -> None:
    done = facemill("models", "list", FACEMILL_MODELS=own)
    assert done.returncode == 0, done.stderr
    assert "non-commercial research only" in done.stdout
    assert f"{own / 'tiny.onnx'}" in done.stdout
    lines = facemill("models", "list", "--json", FACEMILL_MODELS=own).stdout.splitlines()
    found = {json.loads(line)["name"]: json.loads(line) for line in lines}
    assert found["tiny"]["path"] == str(own / "tiny.onnx")
    assert found["w600k_mbf"]["path"] is None
    for name in ("facemill-512", "facemill-det"):
        assert found[name]["path"] == str(ROOT / "models" / f"{name}.onnx")


def test_verify_finds_the_wrong_and_the_missing(own: Path) -> None:
    assert facemill("models", "verify", "tiny", FACEMILL_MODELS=own).returncode == 0
    assert facemill("models", "verify", "sface", FACEMILL_MODELS=own).returncode == 1
    (own / "face_recognition_sface_2021dec.onnx").write_bytes(b"damaged")
    done = facemill("models", "verify", FACEMILL_MODELS=own)
    assert done.returncode == 1
    assert "sface              WRONG" in done.stdout
    assert "tiny               right" in done.stdout
    assert "facemill-512       right" in done.stdout
    assert "facemill-det       right" in done.stdout


def test_fetch_gives_the_path_of_what_is_here(own: Path) -> None:
    done = facemill("models", "fetch", "tiny", FACEMILL_MODELS=own)
    assert (done.returncode, done.stdout.strip()) == (0, str(own / "tiny.onnx"))
    done = facemill("models", "fetch", "mobilefacenet-128", FACEMILL_MODELS=own)
    assert_refused(done, "E-MODEL-UNAVAILABLE", "mobilefacenet-128")
