"""The wheel, installed with its declared dependencies in a clean environment, away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.facemill_command import ROOT


def call(*command: object, cwd: Path, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | environment
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=env, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with only the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("clean")
    source = folder / "source"  # a copy, because files of an earlier build in the checkout would go into the wheel
    for part in ("runtime", "kernels", "models", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / part, source / part)
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / "bin"
    call(binaries / "python", "-m", "pip", "install", "-q", f"{wheel}[cpu]", cwd=folder)
    return binaries


def test_every_package_is_in_the_wheel() -> None:
    """A package that pyproject.toml does not list is missing from the wheel, and an editable install hides it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'^    "(facemill[\w.]*)",$', text, re.MULTILINE))
    rooms = {path.parent.relative_to(ROOT / "runtime") for path in (ROOT / "runtime").rglob("__init__.py")}
    expected = {".".join(("facemill", *room.parts)) for room in rooms} | {"facemill.kernels", "facemill.models"}
    assert listed == expected


@pytest.mark.slow
def test_the_installed_command_embeds_and_searches(clean: Path, photos: Path, tmp_path: Path) -> None:
    facemill = clean / "facemill"
    cache = {"FACEMILL_CACHE": str(tmp_path / "cache")}
    assert "build-engine" in call(facemill, "--help", cwd=tmp_path)
    assert "w600k_mbf" in call(facemill, "models", "list", cwd=tmp_path, **cache)
    assert "runs on this machine" in call(facemill, "doctor", cwd=tmp_path, **cache)
    assert "engine:" in call(facemill, "build-engine", "--model", "random-128", cwd=tmp_path, **cache)
    engine = "engines/random-128.cpu-fp32.onnx"
    output = call(
        facemill,
        "process",
        photos / "1",
        "--align",
        "none",
        "-o",
        "people.h5",
        "--engine",
        engine,
        cwd=tmp_path,
        **cache,
    )
    assert "identify nobody" in output
    query = sorted((photos / "1").iterdir())[0]
    assert "1.0000" in call(
        facemill, "search", "people.h5", query, "-k", 1, "--html", "page.html", cwd=tmp_path, **cache
    )
    assert "data:image/jpeg;base64," in (tmp_path / "page.html").read_text(
        "utf-8"
    )  # templates and assets are installed


@pytest.mark.slow
def test_the_wheel_contains_the_package_and_its_models_and_no_tests(clean: Path) -> None:
    code = "import facemill, pathlib; print(*sorted(p.name for p in pathlib.Path(facemill.__file__).parent.iterdir()))"
    names = call(clean / "python", "-c", code, cwd=clean).split()
    assert {"models", "kernels", "engines", "py.typed"} <= set(names)
    assert not {"tests", "benchmarks"} & set(names)


@pytest.mark.slow
def test_the_wheel_contains_the_default_models_with_their_cards(clean: Path, tmp_path: Path) -> None:
    code = "import facemill, pathlib; print(*pathlib.Path(facemill.__file__).parent.glob('models/facemill-*'))"
    names = {Path(name).name for name in call(clean / "python", "-c", code, cwd=tmp_path).split()}
    networks = ("512", "det", "landmarks", "attributes")
    expected = {f"facemill-{name}.{suffix}" for name in networks for suffix in ("onnx", "toml", "md")}
    assert names == expected | {"facemill-512-attributes.npz"}
    output = call(clean / "facemill", "build-engine", cwd=tmp_path, FACEMILL_CACHE=str(tmp_path / "cache"))
    assert "engine:  engines/facemill-512.cpu-fp32.onnx" in output
