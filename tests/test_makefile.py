"""The plan of `make`: the GPU environment has a single CUDA version."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.errors import assert_names
from tests.support.facemill_command import ROOT


@pytest.fixture
def make_folder(tmp_path: Path) -> Path:
    """A folder for make with an empty GPU environment."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv-gpu").mkdir()
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    command = ["env", "-u", "CUDA", "-u", "MAKEFLAGS", "make", "-n", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True, timeout=60).stdout


def test_the_default_environment_is_for_cuda_12(make_folder: Path) -> None:
    assert "-r requirements/gpu.txt" in plan(make_folder, "setup-gpu")
    assert "-r requirements/gpu13.txt" in plan(make_folder, "setup-gpu", "CUDA=13")


@pytest.mark.parametrize(("current", "requested", "extra"), [("12", "13", "gpu13"), ("13", "12", "gpu")])
def test_a_different_cuda_version_replaces_the_environment(
    make_folder: Path, current: str, requested: str, extra: str
) -> None:
    (make_folder / ".venv-gpu" / f".gpu{current}").touch()
    assert "pip" not in plan(make_folder, "setup-gpu", f"CUDA={current}")
    assert "pip" not in plan(make_folder, "setup-gpu"), "the one that is there will do"
    assert "pip" not in plan(make_folder, "gpu-acceptance")
    output = plan(make_folder, "setup-gpu", f"CUDA={requested}")
    assert f"test -e .venv-gpu/.gpu{requested} || rm -rf .venv-gpu\n" in output
    assert f"--require-hashes -r requirements/{extra}.txt" in output


def test_an_unknown_cuda_version_is_refused_before_a_removal(make_folder: Path) -> None:
    result = subprocess.run(
        ["make", "setup-gpu", "CUDA=11"], capture_output=True, text=True, cwd=make_folder, timeout=60
    )
    assert result.returncode == 2
    assert_names(result.stderr, 11, 12, 13)
    assert (make_folder / ".venv-gpu").is_dir()
