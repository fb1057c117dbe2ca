"""`facemill doctor`, run as a command: on this machine, and in interpreters that lack or mix up packages."""

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


class Bare:
    """An interpreter with click, the readers of TOML and nothing else, and a folder to pretend installations in."""

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
        """A distribution with one module."""
        info = self.packages / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if module:
            (self.packages / f"{module}.py").write_text(code)

    def run(self, *options: str, **environment: object) -> subprocess.CompletedProcess[str]:
        """The doctor in this interpreter; None takes a variable of the environment away."""
        changes = {"PYTHONPATH": self.packages, **environment}
        env = {**os.environ, **{key: str(value) for key, value in changes.items()}}
        env = {key: value for key, value in env.items() if changes.get(key, "") is not None}
        interpreter = getattr(sys, "_base_executable", sys.executable)
        command = [interpreter, "-S", "-m", "runtime.cli.app", "doctor", "--disk", str(self.disk), *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)

    def doctor(self, **environment: object) -> tuple[int, dict[str, Any]]:
        """Exit code and findings, topic to finding."""
        done = self.run("--json", **environment)
        assert not done.stderr
        found = json.loads(done.stdout)
        healthy = found.pop("healthy")
        assert healthy == (done.returncode == 0)
        return done.returncode, {f["topic"]: f for group in found.values() for f in group}


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


@pytest.mark.slow
def test_on_this_machine_it_is_healthy_and_leaves_nothing(tmp_path: Path) -> None:
    done = facemill("doctor", "--disk", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "facemill runs on this machine" in done.stdout
    assert "GB free" in done.stdout
    assert list(tmp_path.iterdir()) == []
    found = json.loads(facemill("doctor", "--json", "--disk", tmp_path).stdout)
    assert found["healthy"]
    assert {f["topic"]: f["state"] for f in found["backends"]}["cpu"] == "ok"


def test_with_nothing_installed_every_need_is_named_with_its_command(bare: Bare) -> None:
    code, found = bare.doctor()
    assert code == 1
    for name in ("numpy", "h5py", "opencv-python-headless", "onnx", "onnxruntime", "jinja2", "platformdirs", "rich"):
        assert (found[name]["state"], found[name]["mend"]) == ("missing", f"pip install {name}")
    assert found["faiss"]["state"] == "missing"
    assert "pip install faiss-cpu" in found["faiss"]["mend"]
    assert found["cpu"]["text"].startswith("without numpy")
    assert found["w600k_mbf"]["mend"] == "facemill models fetch w600k_mbf"


def test_without_the_reader_of_model_files_it_still_answers(bare: Bare) -> None:
    for entry in bare.packages.glob("msgspec*"):
        entry.unlink()
    found = bare.doctor()[1]
    assert (found["msgspec"]["state"], found["msgspec"]["mend"]) == ("missing", "pip install msgspec")
    assert "not checked: No module named 'msgspec'" in found["models"]["text"]


def test_packages_of_single_commands_are_named_with_what_they_are_for(bare: Bare) -> None:
    bare.install("pyarrow")
    found = bare.doctor()[1]
    assert found["pyarrow"]["state"] == "ok"
    assert found["scipy"]["state"] == "info"
    assert "facemill cluster" in found["scipy"]["text"]
    assert found["scipy"]["mend"] == "pip install scipy"
    assert found["qdrant-client"]["mend"] == "pip install qdrant-client"


def test_without_the_cache_folders_package_it_still_answers(bare: Bare) -> None:
    done = bare.run(FACEMILL_CACHE=None)
    assert done.returncode == 1
    assert "its folder is unknown: No module named 'platformdirs'" in done.stdout


def test_two_faiss_are_wrong_and_one_is_right(bare: Bare) -> None:
    bare.install("faiss-cpu", "faiss")
    assert bare.doctor()[1]["faiss-cpu"]["state"] == "ok"
    bare.install("faiss-gpu")
    finding = bare.doctor()[1]["faiss"]
    assert finding["state"] == "wrong"
    assert finding["mend"].startswith("pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-cpu")


def test_another_distribution_of_the_same_module_will_do(bare: Bare) -> None:
    bare.install("onnxruntime-gpu", "onnxruntime")
    bare.install("opencv-python", "cv2")
    found = bare.doctor()[1]
    assert (found["onnxruntime-gpu"]["state"], found["opencv-python"]["state"]) == ("ok", "ok")
    assert "onnxruntime" not in found
    bare.install("opencv-python-headless")
    finding = bare.doctor()[1]["opencv-python-headless"]
    assert finding["state"] == "wrong"
    assert "pip uninstall -y opencv-python-headless opencv-python" in finding["mend"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "the process exited with -6"),
        ("raise ImportError('libfoo.so.1 is not there')", "libfoo.so.1 is not there"),
    ],
)
def test_a_package_that_crashes_does_not_take_the_doctor_along(bare: Bare, code: str, words: str) -> None:
    bare.install("onnx", "onnx", code)
    finding = bare.doctor()[1]["onnx"]
    assert finding["state"] == "wrong"
    assert words in finding["text"]
    assert finding["mend"] == "pip install --force-reinstall onnx"


def test_a_driver_without_a_gpu_is_told_in_the_drivers_words(bare: Bare, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    tool.chmod(0o755)
    # No device for CUDA either, should this machine have one.
    found = bare.doctor(PATH=f"{tmp_path}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="")[1]
    assert found["gpu"]["state"] == "wrong"
    assert "No devices were found" in found["gpu"]["text"]
    assert found["tensorrt"]["text"] == "no usable NVIDIA GPU"


@pytest.mark.parametrize(
    ("shown", "name", "place"), [(None, "Fake 0", "0000:02:00.0"), ("1,0", "Fake 1", "0000:01:00.0")]
)
def test_the_gpu_it_describes_is_the_one_that_cuda_puts_first(
    bare: Bare, driver: FakeDriver, shown: str | None, name: str, place: str
) -> None:
    env = {"CUDA_VISIBLE_DEVICES": None, **driver.environment(gpus=2, shown=shown), "PYTHONPATH": bare.packages}
    found = bare.doctor(**env)[1]
    assert (found["gpu"]["state"], found["gpu"]["text"]) == ("ok", f"{name}, SM75 (the GPU at {place})")


def test_a_gpu_that_is_hidden_is_told_with_what_hides_it(bare: Bare, driver: FakeDriver) -> None:
    found = bare.doctor(**{**driver.environment(gpus=2, shown=""), "PYTHONPATH": bare.packages})[1]
    assert "CUDA finds no GPU with CUDA_VISIBLE_DEVICES=; nvidia-smi says" in found["gpu"]["text"]
    assert found["gpu"]["mend"] == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(("cuda", "kind"), [(12090, "nvidia-dali-cuda120"), (13000, "nvidia-dali-cuda130")])
def test_packages_for_a_gpu_are_of_the_cuda_that_the_driver_runs(
    bare: Bare, driver: FakeDriver, cuda: int, kind: str
) -> None:
    env = {"CUDA_VISIBLE_DEVICES": None, **driver.environment(gpus=1, cuda=cuda), "PYTHONPATH": bare.packages}
    found = bare.doctor(**env)[1]
    other = {"nvidia-dali-cuda120": "cu13", "nvidia-dali-cuda130": "cu12"}[kind]
    assert kind in found[kind]["mend"]
    assert kind in found["tensorrt"]["mend"]
    assert f"tensorrt-rtx-{other}" not in str(found)


def test_a_broken_model_file_is_a_finding(bare: Bare, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.toml").write_text("name = 3")
    finding = bare.doctor(FACEMILL_MODELS=tmp_path / "own")[1]["models"]
    assert finding["state"] == "wrong"
    assert "mine.toml" in finding["text"]


def test_folders_that_cannot_be_written_are_findings(bare: Bare, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bare.disk = tmp_path / "gone"
    found = bare.doctor(FACEMILL_CACHE=tmp_path / "file" / "cache")[1]
    assert "name another folder with --disk" in found["disk"]["mend"]
    assert found["cache"]["state"] == "wrong"
    assert "FACEMILL_CACHE" in found["cache"]["mend"]
