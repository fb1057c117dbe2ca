"""The doctor command, on this machine and in interpreters with missing or conflicting packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.facemill_command import ROOT, facemill
from tests.support.nvidia_driver_stand_in import FakeDriver


class BareInterpreter:
    """An interpreter with only click and the TOML readers; `install` pretends to install packages."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "packages"
        self.packages.mkdir()
        self.disk = folder / "disk"
        self.disk.mkdir()
        site = Path(click.__file__).parent.parent
        for entry in site.iterdir():
            if entry.name.lower().startswith(("click", "msgspec", "tomli")):
                (self.packages / entry.name).symlink_to(entry)

    def install(self, name: str, module: str = "", code: str = "") -> None:
        """Write a distribution with one module."""
        info = self.packages / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if module:
            (self.packages / f"{module}.py").write_text(code)

    def run(self, *options: str, **environment: object) -> subprocess.CompletedProcess[str]:
        """Run doctor in this interpreter; None removes a variable from the environment."""
        changes = {"PYTHONPATH": self.packages, **environment}
        env = {**os.environ, **{key: str(value) for key, value in changes.items()}}
        env = {key: value for key, value in env.items() if changes.get(key, "") is not None}
        interpreter = getattr(sys, "_base_executable", sys.executable)
        command = [interpreter, "-S", "-m", "runtime.cli.app", "doctor", "--disk", str(self.disk), *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)

    def doctor(self, **environment: object) -> tuple[int, dict[str, Any]]:
        """Run doctor; returns its exit code and its findings by topic."""
        result = self.run("--json", **environment)
        assert not result.stderr
        report = json.loads(result.stdout)
        healthy = report.pop("healthy")
        assert healthy == (result.returncode == 0)
        return result.returncode, {finding["topic"]: finding for group in report.values() for finding in group}


@pytest.fixture
def bare(tmp_path: Path) -> BareInterpreter:
    return BareInterpreter(tmp_path)


@pytest.mark.slow
def test_this_machine_is_healthy_and_no_file_remains(tmp_path: Path) -> None:
    result = facemill("doctor", "--disk", tmp_path)
    assert result.returncode == 0, result.stdout
    assert "facemill runs on this machine" in result.stdout
    assert "GB free" in result.stdout
    assert list(tmp_path.iterdir()) == []
    report = json.loads(facemill("doctor", "--json", "--disk", tmp_path).stdout)
    assert report["healthy"]
    assert {finding["topic"]: finding["state"] for finding in report["backends"]}["cpu"] == "ok"


@pytest.mark.slow
def test_every_missing_package_is_listed_with_its_install_command(bare: BareInterpreter) -> None:
    code, findings = bare.doctor()
    assert code == 1
    for name in (
        "numpy",
        "h5py",
        "opencv-python-headless",
        "onnx",
        "onnxruntime",
        "jinja2",
        "platformdirs",
        "rich",
        "simplejpeg",
    ):
        assert (findings[name]["state"], findings[name]["mend"]) == ("missing", f"pip install {name}")
    assert findings["faiss"]["state"] == "missing"
    assert "pip install faiss-cpu" in findings["faiss"]["mend"]
    assert findings["cpu"]["text"].startswith("without numpy")
    assert findings["w600k_mbf"]["mend"] == "facemill models fetch w600k_mbf"


@pytest.mark.slow
def test_doctor_runs_without_msgspec(bare: BareInterpreter) -> None:
    for entry in bare.packages.glob("msgspec*"):
        entry.unlink()
    findings = bare.doctor()[1]
    assert (findings["msgspec"]["state"], findings["msgspec"]["mend"]) == ("missing", "pip install msgspec")
    assert "not checked: No module named 'msgspec'" in findings["models"]["text"]


@pytest.mark.slow
def test_optional_packages_are_listed_with_their_commands(bare: BareInterpreter) -> None:
    bare.install("pyarrow")
    findings = bare.doctor()[1]
    assert findings["pyarrow"]["state"] == "ok"
    assert findings["scipy"]["state"] == "info"
    assert "facemill cluster" in findings["scipy"]["text"]
    assert findings["scipy"]["mend"] == "pip install scipy"
    assert findings["qdrant-client"]["mend"] == "pip install qdrant-client"


@pytest.mark.slow
def test_doctor_runs_without_platformdirs(bare: BareInterpreter) -> None:
    result = bare.run(FACEMILL_CACHE=None)
    assert result.returncode == 1
    assert "its folder is unknown: No module named 'platformdirs'" in result.stdout


@pytest.mark.slow
def test_two_installed_faiss_packages_are_wrong(bare: BareInterpreter) -> None:
    bare.install("faiss-cpu", "faiss")
    assert bare.doctor()[1]["faiss-cpu"]["state"] == "ok"
    bare.install("faiss-gpu")
    finding = bare.doctor()[1]["faiss"]
    assert finding["state"] == "wrong"
    assert finding["mend"].startswith("pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-cpu")


@pytest.mark.slow
def test_a_different_distribution_of_the_same_module_is_accepted(bare: BareInterpreter) -> None:
    bare.install("onnxruntime-gpu", "onnxruntime")
    bare.install("opencv-python", "cv2")
    findings = bare.doctor()[1]
    assert (findings["onnxruntime-gpu"]["state"], findings["opencv-python"]["state"]) == ("ok", "ok")
    assert "onnxruntime" not in findings
    bare.install("opencv-python-headless")
    finding = bare.doctor()[1]["opencv-python-headless"]
    assert finding["state"] == "wrong"
    assert "pip uninstall -y opencv-python-headless opencv-python" in finding["mend"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "the process exited with -6"),
        ("raise ImportError('libfoo.so.1 is not there')", "libfoo.so.1 is not there"),
    ],
)
def test_a_package_that_crashes_does_not_stop_doctor(bare: BareInterpreter, code: str, message: str) -> None:
    bare.install("onnx", "onnx", code)
    finding = bare.doctor()[1]["onnx"]
    assert finding["state"] == "wrong"
    assert message in finding["text"]
    assert finding["mend"] == "pip install --force-reinstall onnx"


@pytest.mark.slow
def test_a_driver_without_a_gpu_is_reported_with_its_message(bare: BareInterpreter, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    tool.chmod(0o755)
    # Hide the GPU of this machine from CUDA too.
    findings = bare.doctor(PATH=f"{tmp_path}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="")[1]
    assert findings["gpu"]["state"] == "wrong"
    assert "No devices were found" in findings["gpu"]["text"]
    assert findings["tensorrt"]["text"] == "no usable NVIDIA GPU"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible_devices", "name", "bus_id"), [(None, "Fake 0", "0000:02:00.0"), ("1,0", "Fake 1", "0000:01:00.0")]
)
def test_doctor_describes_the_first_gpu_of_cuda(
    bare: BareInterpreter, driver: FakeDriver, visible_devices: str | None, name: str, bus_id: str
) -> None:
    env = {
        "CUDA_VISIBLE_DEVICES": None,
        **driver.environment(gpus=2, shown=visible_devices),
        "PYTHONPATH": bare.packages,
    }
    findings = bare.doctor(**env)[1]
    assert (findings["gpu"]["state"], findings["gpu"]["text"]) == ("ok", f"{name}, SM75 (the GPU at {bus_id})")


@pytest.mark.slow
def test_a_hidden_gpu_is_reported_with_the_variable_that_hides_it(bare: BareInterpreter, driver: FakeDriver) -> None:
    findings = bare.doctor(**{**driver.environment(gpus=2, shown=""), "PYTHONPATH": bare.packages})[1]
    assert "CUDA finds no GPU with CUDA_VISIBLE_DEVICES=; nvidia-smi says" in findings["gpu"]["text"]
    assert findings["gpu"]["mend"] == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.slow
@pytest.mark.parametrize(("cuda", "package"), [(12090, "nvidia-dali-cuda120"), (13000, "nvidia-dali-cuda130")])
def test_gpu_packages_match_the_cuda_version_of_the_driver(
    bare: BareInterpreter, driver: FakeDriver, cuda: int, package: str
) -> None:
    env = {"CUDA_VISIBLE_DEVICES": None, **driver.environment(gpus=1, cuda=cuda), "PYTHONPATH": bare.packages}
    findings = bare.doctor(**env)[1]
    wrong_cuda = {"nvidia-dali-cuda120": "cu13", "nvidia-dali-cuda130": "cu12"}[package]
    assert package in findings[package]["mend"]
    assert package in findings["tensorrt"]["mend"]
    assert f"tensorrt-rtx-{wrong_cuda}" not in str(findings)


@pytest.mark.slow
def test_a_broken_model_file_is_a_finding(bare: BareInterpreter, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.toml").write_text("name = 3")
    finding = bare.doctor(FACEMILL_MODELS=tmp_path / "own")[1]["models"]
    assert finding["state"] == "wrong"
    assert "mine.toml" in finding["text"]


@pytest.mark.slow
def test_unwritable_folders_are_findings(bare: BareInterpreter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bare.disk = tmp_path / "gone"
    findings = bare.doctor(FACEMILL_CACHE=tmp_path / "file" / "cache")[1]
    assert "name another folder with --disk" in findings["disk"]["mend"]
    assert findings["cache"]["state"] == "wrong"
    assert "FACEMILL_CACHE" in findings["cache"]["mend"]
