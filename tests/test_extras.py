"""Optional packages: the error names the command that installs them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from runtime import extras
from runtime.errors import Interrupted, MissingDependencyError
from runtime.extras import EXTRAS, available, pip_install, require
from tests.support.errors import raises

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def test_the_install_commands_match_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        extra: shlex.join(re.split(r"[<>=]", name)[0] for name in names)
        for extra, names in project["optional-dependencies"].items()
        if extra not in ("acceptance", "build", "dev", "gputest", "supply", "train")  # no error message asks for these
    }
    assert declared == EXTRAS


def test_no_base_dependency_provides_faiss() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [name for name in project["dependencies"] if name.startswith("faiss")]


@pytest.mark.parametrize(
    ("cuda", "gpu", "rtx"),
    [(None, "gpu", "rtx"), ((12, 4), "gpu", "rtx"), ((13, 0), "gpu13", "rtx13"), ((14, 1), "gpu13", "rtx13")],
)
def test_packages_match_the_cuda_version_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, cuda: tuple[int, int] | None, gpu: str, rtx: str
) -> None:
    monkeypatch.setattr(extras, "driver_cuda", lambda: cuda)
    assert pip_install("gpu") == f"pip install {EXTRAS[gpu]}"
    assert pip_install("rtx") == f"pip install {EXTRAS[rtx]}"
    assert pip_install("cpu") == "pip install faiss-cpu"
    with raises(MissingDependencyError, f"pip install {EXTRAS[rtx]}"):
        require("no_such_package", extra="rtx")


def test_extras_agree_on_shared_packages() -> None:
    assert EXTRAS["rtx"] in EXTRAS["gpu"].split()
    assert EXTRAS["rtx13"] in EXTRAS["gpu13"].split()


def test_a_missing_package_is_named_with_its_command() -> None:
    assert not available("no_such_package")
    with raises(MissingDependencyError, "trying", "no_such_package") as caught:
        require("no_such_package", extra="rtx", purpose="trying")
    assert re.search(r"pip install tensorrt-rtx-cu1[23]$", str(caught.value))
    with raises(MissingDependencyError, "pip install no_such_package"):
        require("no_such_package")


def test_an_installed_package_is_returned() -> None:
    assert available("numpy")
    assert require("numpy").__name__ == "numpy"


def test_a_signal_during_an_import_is_not_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module made with pybind11 hides what a signal handler raises behind an ImportError."""
    code = (
        "from runtime.errors import Interrupted\nraise ImportError('initialization failed') from Interrupted('x', 15)\n"
    )
    (tmp_path / "compiled_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Interrupted) as caught:
        require("compiled_module")
    assert caught.value.signum == 15
