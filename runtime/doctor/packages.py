"""Which packages are installed and import, for `facemill doctor`.

Nothing is imported into this process: a package whose libraries crash must not take the doctor with it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..extras import EXTRAS, pip_install

# Import name -> the distributions that provide it, the one that facemill asks for first.
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
}
_FAISS = ("faiss-cpu", "faiss-gpu")
# Import name -> the distributions that provide it, for CUDA 12 first, and the extra that brings the driver's kind.
GPU = {
    "tensorrt": (("tensorrt-cu12", "tensorrt-cu13", "tensorrt"), "tensorrt"),
    "tensorrt_rtx": (("tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx"), "rtx"),
    "nvidia.dali": (("nvidia-dali-cuda120", "nvidia-dali-cuda130"), "gpu"),
    "cupy": (("cupy-cuda12x", "cupy-cuda13x"), "gpu"),
    "pycuda": (("pycuda",), "pycuda"),
}
# Import name -> the distributions that provide it.
PROVIDERS = {**_BASE, **{module: names for module, (names, _) in GPU.items()}}
# Distribution -> what it is for, and the extra that brings it.
_OPTIONAL = {
    "scipy": ("facemill cluster by the graph of like faces", "cluster"),
    "pyarrow": ("Parquet files of pairs and of export", "parquet"),
    "qdrant-client": ("facemill export --qdrant", "qdrant"),
    "matplotlib": ("the pictures of facemill evaluate", "report"),
    "plotly": ("facemill map", "map"),
    "scikit-learn": ("facemill map", "map"),
}
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: what was looked at.
        state: "ok", "missing", "wrong" or "info".
        text: what was found.
        mend: the command that mends it; empty when there is nothing to mend.
        needed: whether the CPU product cannot run without it.
    """

    topic: str
    state: str
    text: str
    mend: str = ""
    needed: bool = False


def base_packages() -> list[Finding]:
    """What every installation needs, faiss among it."""
    return [*(_provided(module, names) for module, names in _BASE.items()), _faiss()]


def optional_packages() -> list[Finding]:
    """What single commands need beyond that; they are not imported, which takes some of them seconds."""
    return [
        Finding(name, "ok", f"{installed(name)}, for {what}")
        if installed(name)
        else Finding(name, "info", f"not installed; for {what}", install_extra(extra))
        for name, (what, extra) in _OPTIONAL.items()
    ]


def gpu_packages(*, wanted: bool) -> list[Finding]:
    """What the GPU's backends are made of, by distribution.

    Args:
        wanted: whether this machine has a GPU, so that a command to install them is of use.
    """
    findings = []
    for module, (names, extra) in GPU.items():
        there = [name for name in names if installed(name)]
        if there:
            findings.append(_imported(there[0], module))
        else:
            name = next(name for name in names if name in pip_install(extra))
            findings.append(Finding(name, "info", "not installed", install_extra(extra) if wanted else ""))
    return findings


def installed(name: str) -> str:
    """The version of a distribution, or empty."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def install_extra(extra: str) -> str:
    """The command that installs an extra, and leaves one faiss: pip would put faiss-gpu over faiss-cpu."""
    first = "pip uninstall -y faiss-cpu && " if "faiss-gpu" in EXTRAS[extra] and installed("faiss-cpu") else ""
    return first + pip_install(extra)


def run_python(code: str) -> tuple[str, str]:
    """Run code in another interpreter.

    Returns:
        What it printed, and what went wrong in a line: empty when nothing did.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_TIMEOUT_S} s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    return "", (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]


def _provided(module: str, names: tuple[str, ...]) -> Finding:
    """One needed module, from exactly one of the distributions that provide it."""
    there = [name for name in names if installed(name)]
    if not there:
        return Finding(names[0], "missing", "not installed", f"pip install {names[0]}", needed=True)
    if len(there) > 1:
        text = f"{' and '.join(there)} overwrite each other"
        mend = f"pip uninstall -y {' '.join(there)} && pip install {there[-1] if module == 'onnxruntime' else names[0]}"
        trouble = bool(run_python(f"import {module}")[1])  # as a rule it runs all the same
        return Finding(names[0], "wrong", text, mend, needed=trouble)
    return _imported(there[0], module, needed=True)


def _imported(name: str, module: str, *, needed: bool = False) -> Finding:
    """The version of an installed distribution, after its import in another process."""
    _, trouble = run_python(f"import {module}")
    if not trouble:
        return Finding(name, "ok", installed(name), needed=needed)
    text = f"{installed(name)}, but it does not import: {trouble}"
    return Finding(name, "wrong", text, f"pip install --force-reinstall {name}", needed)


def _faiss() -> Finding:
    """Exactly one of the two distributions of the module `faiss`, which pip cannot choose between."""
    there = [name for name in _FAISS if installed(name)]
    if len(there) == 1:
        return _imported(there[0], "faiss", needed=True)
    mend = f"{pip_install('cpu')}   (with an NVIDIA GPU, instead: pip install faiss-gpu)"
    if not there:
        return Finding("faiss", "missing", "neither faiss-cpu nor faiss-gpu; search needs one", mend, needed=True)
    text = "faiss-cpu and faiss-gpu are both here; they overwrite each other"
    return Finding("faiss", "wrong", text, f"pip uninstall -y {' '.join(there)} && {mend}", needed=True)
