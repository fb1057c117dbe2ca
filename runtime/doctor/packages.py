"""Check which packages are installed and can be imported, for `facemill doctor`.

Packages are imported in other processes, so that a crash of their libraries cannot stop the doctor.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..extras import EXTRAS, is_machine_fault, pip_install

# Import name -> the distributions that provide it, the recommended one first.
_BASE = {
    "numpy": ("numpy",),
    "click": ("click",),
    "h5py": ("h5py",),
    "msgspec": ("msgspec",),
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "jinja2": ("jinja2",),
    "platformdirs": ("platformdirs",),
    "rich": ("rich",),
    "simplejpeg": ("simplejpeg",),
}
_FAISS = ("faiss-cpu", "faiss-gpu")
# Import name -> the distributions that provide it, for CUDA 12 first, and the extra that installs it.
GPU = {
    "tensorrt": (("tensorrt-cu12", "tensorrt-cu13", "tensorrt"), "tensorrt"),
    "tensorrt_rtx": (("tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx"), "rtx"),
    "nvidia.dali": (("nvidia-dali-cuda120", "nvidia-dali-cuda130"), "gpu"),
    "cupy": (("cupy-cuda12x", "cupy-cuda13x"), "gpu"),
    "pycuda": (("pycuda",), "pycuda"),
}
# Import name -> the distributions that provide it.
PROVIDERS = {**_BASE, **{module: names for module, (names, _) in GPU.items()}}
# Distribution -> its purpose, and the extra that installs it.
_OPTIONAL = {
    "scipy": ("facemill cluster with a threshold", "cluster"),
    "pyarrow": ("Parquet files of pairs and of export", "parquet"),
    "qdrant-client": ("facemill export --qdrant", "qdrant"),
    "matplotlib": ("plots of facemill evaluate", "report"),
    "plotly": ("facemill map", "map"),
    "scikit-learn": ("facemill map", "map"),
}
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: subject of the line.
        state: "ok", "missing", "wrong" or "info".
        text: result of the check.
        fix: command that fixes the problem; empty for none. Its JSON key is `mend`.
        needed: whether facemill cannot run on the CPU without it.
    """

    topic: str
    state: str
    text: str
    fix: str = ""
    needed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready data."""
        return {
            "topic": self.topic,
            "state": self.state,
            "text": self.text,
            "mend": self.fix,
            "needed": self.needed,
        }


def base_packages() -> list[Finding]:
    """Check the packages that every installation needs, faiss among them."""
    return [*(_check_module(module, names) for module, names in _BASE.items()), _faiss()]


def optional_packages() -> list[Finding]:
    """Check the packages of single commands. They are not imported, because some take seconds."""
    return [
        Finding(name, "ok", f"{installed(name)}, for {purpose}")
        if installed(name)
        else Finding(name, "info", f"not installed; for {purpose}", install_extra(extra))
        for name, (purpose, extra) in _OPTIONAL.items()
    ]


def gpu_packages(*, has_gpu: bool) -> list[Finding]:
    """Check the packages of the GPU backends.

    Args:
        has_gpu: whether this machine has a GPU; if so, findings name the command that installs a missing package.
    """
    findings = []
    for module, (names, extra) in GPU.items():
        present = [name for name in names if installed(name)]
        if present:
            findings.append(_check_import(present[0], module))
        else:
            name = next(name for name in names if name in pip_install(extra))
            findings.append(Finding(name, "info", "not installed", install_extra(extra) if has_gpu else ""))
    return findings


def installed(name: str) -> str:
    """Return the version of a distribution; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def install_extra(extra: str) -> str:
    """Return the command that installs an extra. It removes faiss-cpu first where faiss-gpu would overwrite it."""
    first = "pip uninstall -y faiss-cpu && " if "faiss-gpu" in EXTRAS[extra] and installed("faiss-cpu") else ""
    return first + pip_install(extra)


def run_python(code: str) -> tuple[str, str]:
    """Run code in another interpreter, which imports nothing from the current folder.

    Returns:
        The output, and the error in one line; empty without an error.
    """
    command = [sys.executable, "-c", f"import sys; sys.path.remove('')\n{code}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_TIMEOUT_S} s"
    if result.returncode == 0:
        return result.stdout.strip(), ""
    return "", (result.stderr.strip().splitlines() or [f"the process exited with {result.returncode}"])[-1]


def _check_module(module: str, names: tuple[str, ...]) -> Finding:
    """Check a needed module, which exactly one of its distributions must provide."""
    present = [name for name in names if installed(name)]
    if not present:
        return Finding(names[0], "missing", "not installed", f"pip install {names[0]}", needed=True)
    if len(present) > 1:
        text = f"{' and '.join(present)} overwrite each other"
        choice = present[-1] if module == "onnxruntime" else names[0]
        fix = f"pip uninstall -y {' '.join(present)} && pip install {choice}"
        fails = bool(run_python(f"import {module}")[1])  # it usually works
        return Finding(names[0], "wrong", text, fix, needed=fails)
    return _check_import(present[0], module, needed=True)


def _check_import(name: str, module: str, *, needed: bool = False) -> Finding:
    """Import an installed distribution in another process, and report its version."""
    _, error = run_python(f"import {module}")
    if not error:
        return Finding(name, "ok", installed(name), needed=needed)
    text = f"{installed(name)}, but the import fails: {error}"
    again = "check the disk and the memory (dmesg), then run facemill doctor again"
    fix = again if is_machine_fault(error) else f"pip install --force-reinstall {name}"
    return Finding(name, "wrong", text, fix, needed)


def _faiss() -> Finding:
    """Check that exactly one of the two distributions of `faiss` is installed; pip does not prevent both."""
    present = [name for name in _FAISS if installed(name)]
    if len(present) == 1:
        return _check_import(present[0], "faiss", needed=True)
    fix = f"{pip_install('cpu')}   (with an NVIDIA GPU, instead: pip install faiss-gpu)"
    if not present:
        return Finding("faiss", "missing", "neither faiss-cpu nor faiss-gpu; search needs one", fix, needed=True)
    text = "faiss-cpu and faiss-gpu are both installed and overwrite each other"
    return Finding("faiss", "wrong", text, f"pip uninstall -y {' '.join(present)} && {fix}", needed=True)
