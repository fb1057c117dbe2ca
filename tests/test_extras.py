"""Optional packages: a message names a command that brings them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from runtime.errors import MissingDependencyError
from runtime.extras import EXTRAS, available, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def test_the_commands_name_what_the_extras_hold() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        extra: shlex.join(re.split(r"[<>=]", name)[0] for name in names)
        for extra, names in project["optional-dependencies"].items()
        if extra not in ("dev", "gputest", "train")  # no message of the package asks for these
    }
    assert declared == EXTRAS


def test_no_base_dependency_provides_faiss() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [name for name in project["dependencies"] if name.startswith("faiss")]


def test_a_missing_package_is_named_with_its_command() -> None:
    assert not available("no_such_package")
    with pytest.raises(MissingDependencyError, match=r"needed \(trying\) .* pip install tensorrt-rtx"):
        require("no_such_package", extra="rtx", purpose="trying")
    with pytest.raises(MissingDependencyError, match="pip install no_such_package"):
        require("no_such_package")


def test_a_package_that_is_there_comes_back() -> None:
    assert available("numpy")
    assert require("numpy").__name__ == "numpy"
