"""What `make` would do: the environment for a GPU is of one CUDA."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.errors import assert_names
from tests.support.facemill_command import ROOT


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A folder for make, without environments."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv-gpu").mkdir()
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    command = ["env", "-u", "CUDA", "-u", "MAKEFLAGS", "make", "-n", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True, timeout=60).stdout


def test_without_an_environment_it_is_cuda_12_unless_told(planned: Path) -> None:
    assert "-r requirements/gpu.txt" in plan(planned, "setup-gpu")
    assert "-r requirements/gpu13.txt" in plan(planned, "setup-gpu", "CUDA=13")


@pytest.mark.parametrize(("there", "other", "extra"), [("12", "13", "gpu13"), ("13", "12", "gpu")])
def test_another_cuda_is_another_environment(planned: Path, there: str, other: str, extra: str) -> None:
    (planned / ".venv-gpu" / f".gpu{there}").touch()
    assert "pip" not in plan(planned, "setup-gpu", f"CUDA={there}")
    assert "pip" not in plan(planned, "setup-gpu"), "the one that is there will do"
    assert "pip" not in plan(planned, "gpu-acceptance")
    said = plan(planned, "setup-gpu", f"CUDA={other}")
    assert f"test -e .venv-gpu/.gpu{other} || rm -rf .venv-gpu\n" in said
    assert f"--require-hashes -r requirements/{extra}.txt" in said


def test_a_cuda_that_there_is_not_is_refused_before_anything_is_removed(planned: Path) -> None:
    done = subprocess.run(["make", "setup-gpu", "CUDA=11"], capture_output=True, text=True, cwd=planned, timeout=60)
    assert done.returncode == 2
    assert_names(done.stderr, 11, 12, 13)
    assert (planned / ".venv-gpu").is_dir()
