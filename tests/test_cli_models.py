"""`facemill models`, `doctor` and the frame around every command, run as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT


def facemill(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **{k: str(v) for k, v in environment.items()}}
    command = [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)


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


def test_verify_finds_the_wrong_and_the_missing(own: Path) -> None:
    assert facemill("models", "verify", "tiny", FACEMILL_MODELS=own).returncode == 0
    assert facemill("models", "verify", "sface", FACEMILL_MODELS=own).returncode == 1
    (own / "face_recognition_sface_2021dec.onnx").write_bytes(b"damaged")
    done = facemill("models", "verify", FACEMILL_MODELS=own)
    assert done.returncode == 1
    assert "sface              WRONG" in done.stdout
    assert "tiny               right" in done.stdout


def test_fetch_gives_the_path_of_what_is_here(own: Path) -> None:
    done = facemill("models", "fetch", "tiny", FACEMILL_MODELS=own)
    assert (done.returncode, done.stdout.strip()) == (0, str(own / "tiny.onnx"))
    done = facemill("models", "fetch", "mobilefacenet-128", FACEMILL_MODELS=own)
    assert done.returncode == 1
    assert "Put the file into" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_says_what_is_there_and_leaves_nothing(tmp_path: Path) -> None:
    done = facemill("doctor", "--disk", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "facemill runs on this machine" in done.stdout
    assert "GB free" in done.stdout
    assert list(tmp_path.iterdir()) == []
    found = json.loads(facemill("doctor", "--json", "--disk", tmp_path).stdout)
    assert found["healthy"]
    assert {f["topic"]: f["state"] for f in found["backends"]}["cpu"] == "ok"


def test_doctor_names_what_is_missing_and_the_command_that_mends_it(tmp_path: Path) -> None:
    # An interpreter without any packages but click and numpy, as if nothing else had been installed.
    packages = tmp_path / "packages"
    packages.mkdir()
    site = Path(next(p for p in sys.path if p.endswith("site-packages")))
    for entry in site.iterdir():
        if entry.name.lower().split("-")[0].split(".")[0] in ("click", "numpy", "tomli", "platformdirs"):
            (packages / entry.name).symlink_to(entry)
    done = subprocess.run(
        [sys._base_executable, "-S", "-m", "runtime.cli.app", "doctor", "--disk", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(packages)},
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "pip install 'facemill[cpu]'" in done.stdout
    assert "MISSING onnxruntime" in done.stdout.replace("  ", " ").replace("  ", " ")


def test_doctor_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = facemill("doctor", "--disk", tmp_path / "gone")
    assert "name another folder with --disk" in done.stdout
    assert "Traceback" not in done.stderr


def test_version_and_unknown_command() -> None:
    from runtime import __version__

    assert facemill("--version").stdout.strip() == f"facemill, version {__version__}"
    done = facemill("proces")
    assert done.returncode == 2
    assert "No such command" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m runtime.cli.app models list --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "Traceback" not in done.stderr


def test_a_log_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = facemill("process", tmp_path, "--log", tmp_path / "gone" / "x.log", "--model", "random-128")
    assert done.returncode == 1
    assert "the log file" in done.stderr
    assert "Traceback" not in done.stderr
