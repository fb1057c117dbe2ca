"""The sources of packages: every version and hash is locked, for each set and for the build."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.facemill_command import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(path: Path) -> dict[str, set[str]]:
    """Return the versions of each package of a lock; several if they depend on the version of Python."""
    versions: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip()):
        name, version = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", block).groups()  # type: ignore[union-attr]
        assert "--hash=sha256:" in block, f"{path.name}: {name} has no hash"
        versions.setdefault(name, set()).add(version)
    return versions


def test_there_is_a_lock_for_each_set() -> None:
    assert [path.stem for path in LOCKS] == ["cpu", "dev", "gpu", "gpu13", "gputest", "supply"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_the_sets_share_versions_and_contain_the_build_back_end(path: Path) -> None:
    packages, base = locked(path), locked(ROOT / "requirements" / "cpu.txt")
    assert "setuptools" in packages
    for name in set(packages) & set(base):
        assert packages[name] == base[name], name


def test_the_bill_of_materials_lists_the_base_set() -> None:
    components = json.loads((ROOT / "requirements" / "sbom.json").read_text(encoding="utf-8"))["components"]
    listed: dict[str, set[str]] = {}
    for component in components:
        listed.setdefault(component["name"], set()).add(component["version"])
    assert listed == locked(ROOT / "requirements" / "cpu.txt")


def test_nothing_is_installed_without_a_hash() -> None:
    for target in ("setup", "setup-gputest", "setup-gpu"):
        command = ["make", "--always-make", "--dry-run", target, "VENV=.venv-of-a-test", "GPU_VENV=.venv-of-a-test"]
        planned = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60).stdout
        installs = [line for line in planned.splitlines() if " install " in line and "-m pip" in line]
        assert installs
        for line in installs:
            own = "--no-deps --no-build-isolation --editable ." in line
            assert own or "--require-hashes" in line, line
