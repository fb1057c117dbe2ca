"""Optional packages: the error names the command that installs them."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import extras
from runtime.errors import Interrupted, MachineError, MissingDependencyError
from runtime.extras import EXTRAS, available, pip_install, require
from tests.support.errors import raises
from tests.support.facemill_command import facemill_process

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
    with raises(MissingDependencyError, "pip install scipy", "facemill[cluster]"):
        require("no_such_package", extra="cluster", purpose="a test")


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


def importable(code: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install `some_module`, of this source."""
    (tmp_path / "some_module.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_module", raising=False)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('libfoo.so.1: cannot open shared object file: No such file or directory')", "libfoo.so.1"),
        ("import no_other_package", "no_other_package"),
        ("raise AttributeError('numpy has no attribute bool8')", "bool8"),
        ("raise PermissionError(13, 'Permission denied', '/lib/x.so')", "/lib/x.so"),
        (b"x = 1\0\0\0\0", "some_module"),
    ],
)
def test_a_package_that_is_broken_is_not_called_missing(
    code: str | bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importable(code, tmp_path, monkeypatch)
    with raises(MissingDependencyError, "is installed", says, "pip install pyarrow --force-reinstall") as caught:
        require("some_module", extra="parquet")
    assert "not installed" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise OSError(5, 'Input/output error', '/lib/x.py')", "/lib/x.py"),
        ("raise ImportError('/lib/x.so: cannot read file data: Input/output error')", "/lib/x.so"),
        ("raise ImportError('/lib/x.so: failed to map segment: Cannot allocate memory')", "Cannot allocate memory"),
        ("raise OSError(28, 'No space left on device')", "No space left"),
        ("raise MemoryError", "no memory"),
        ("raise ImportError('/lib/x.so: cannot open: Too many open files')", "ulimit -n"),
    ],
)
def test_a_machine_that_cannot_read_a_package_is_named(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importable(code, tmp_path, monkeypatch)
    with raises(MachineError, "some_module", says) as caught:
        require("some_module", extra="parquet")
    assert "pip install" not in str(caught.value)


def test_a_package_is_not_missing_where_its_folder_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if isinstance(path, str) and path.startswith(str(tmp_path)):
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with raises(MachineError, "no_such_package", "Input/output error"):
        require("no_such_package", extra="parquet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise OSError(5, 'Input/output error', '/lib/h5.so')", "E-MACHINE: "),
        ("raise ImportError('/lib/h5.so: Input/output error', name='h5py')", "E-MACHINE: "),
        ("raise ImportError('libhdf5.so is not there', name='h5py')", "E-PACKAGE: "),
        ("raise ModuleNotFoundError('No module named h5py', name='h5py')", "E-PACKAGE: "),
    ],
)
@pytest.mark.parametrize("command", ["verify", "outcomes"])
def test_a_command_states_why_a_package_cannot_be_imported(command: str, code: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "people.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "h5py.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = facemill_process(command, tmp_path / "people.h5", env=environment)
    assert done.returncode == 1
    (last,) = done.stderr.splitlines()
    assert last.startswith(line)
    assert ("not installed" in last) == ("ModuleNotFound" in code)


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


@pytest.mark.slow
def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry keeps a name of this machine and a queue in the home folder, and complains if it cannot."""
    script = "import os; from runtime.extras import require; require('onnxruntime'); print(sorted(os.environ))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for home in (tmp_path, Path("/proc/no-home")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert "telemetry" not in done.stderr
        assert "ORT_DISABLE_TELEMETRY" not in done.stdout  # the environment of the process is as before
    assert not list(tmp_path.rglob("*"))
