"""What this machine has, for `facemill doctor`: packages, processor, GPU, disk, models, and which backends would run.

Nothing is imported into this process: a package whose libraries crash must not take the doctor with it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..assets import cache_dir
from ..modelspec import list_specs
from ..modelstore import find_weights

_BASE = {
    "numpy": "numpy",
    "click": "click",
    "h5py": "h5py",
    "opencv-python-headless": "cv2",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "platformdirs": "platformdirs",
    "rich": "rich",
}
_FAISS = ("faiss-cpu", "faiss-gpu")
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_GPU = {
    "tensorrt-cu12": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "nvidia-dali-cuda120": "nvidia.dali",
    "cupy-cuda12x": "cupy",
}
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PROBE_BYTES = 64 << 20


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


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings, in the order to show them, by section."""

    sections: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether the product would run on this machine's CPU."""
        return not any(f.needed and f.state in ("missing", "wrong") for group in self.sections.values() for f in group)

    def as_json(self) -> str:
        """One line."""
        sections = {name: [asdict(f) for f in group] for name, group in self.sections.items()}
        return json.dumps({"healthy": self.healthy, **sections})


def examine(disk: Path) -> Examination:
    """Look at everything.

    Args:
        disk: folder whose free room and write speed are measured.
    """
    packages = [*(_package(name, module, needed=True) for name, module in _BASE.items()), _faiss(), *_opencv_clash()]
    gpu = _gpu()
    optional = [_package(name, module, needed=False) for name, module in _GPU.items()]
    return Examination(
        {
            "machine": [*_machine(), gpu, _disk(disk), _cache()],
            "packages": packages,
            "packages for a GPU": optional,
            "models": _models(),
            "backends": _backends([*packages, *optional], gpu),
        }
    )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _package(name: str, module: str, *, needed: bool) -> Finding:
    """A package's version, after its import in another process."""
    found = _installed(name)
    extra = {"tensorrt-rtx": "[rtx]"}.get(name, "" if needed else "[gpu]")
    mend = f"pip install 'facemill{extra}'" if extra else "pip install facemill"
    if found is None:
        return Finding(name, "missing" if needed else "info", "not installed", mend, needed)
    trouble = _import_trouble(module)
    if trouble:
        again = f"pip install --force-reinstall {name}"
        return Finding(name, "wrong", f"{found}, but it does not import: {trouble}", again, needed)
    return Finding(name, "ok", found, needed=needed)


def _import_trouble(module: str) -> str:
    """The last line of what importing a module says when it fails; empty when it does not."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with {done.returncode}"


def _faiss() -> Finding:
    """Exactly one of the two distributions of the module `faiss`."""
    there = [name for name in _FAISS if _installed(name)]
    if not there:
        mend = "pip install 'facemill[cpu]' (or 'facemill[gpu]')"
        return Finding("faiss", "missing", "neither faiss-cpu nor faiss-gpu; search needs one", mend, needed=True)
    if len(there) == 2:
        mend = "pip uninstall -y faiss-cpu faiss-gpu && pip install 'facemill[cpu]' (or 'facemill[gpu]')"
        return Finding("faiss", "wrong", "faiss-cpu and faiss-gpu are both here; they overwrite each other", mend, True)
    return _package(there[0], "faiss", needed=True)


def _opencv_clash() -> list[Finding]:
    there = [name for name in _OPENCV if _installed(name)]
    if len(there) < 2:
        return []
    mend = f"pip uninstall -y {' '.join(there)} && pip install opencv-python-headless"
    return [Finding("opencv", "wrong", f"{' and '.join(there)} overwrite each other", mend, needed=False)]


def _machine() -> list[Finding]:
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    flags = set((re.search(r"^flags\s*:\s*(.+)$", cpu, re.MULTILINE) or ["", ""])[1].split())
    features = ", ".join(f for f in _FEATURES if f in flags) or "none of " + ", ".join(_FEATURES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        Finding("facemill", "info", f"{__version__} on Python {platform.python_version()}"),
        Finding("system", "info", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding(
            "processor", "info", f"{model[1] if model else 'unknown'}, {len(os.sched_getaffinity(0))} cores usable"
        ),
        Finding("features", "info", features),
        Finding("memory", "info", f"{memory:.1f} GiB"),
    ]


def _gpu() -> Finding:
    """The GPUs and their driver, in the driver's own words."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "info", "no NVIDIA driver (nvidia-smi is not there); facemill runs on the CPU")
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    done = subprocess.run([tool, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=60)
    if done.returncode != 0 or not done.stdout.strip():
        words = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        return Finding("gpu", "wrong", f"nvidia-smi fails: {words[-1]}", "install or restart the NVIDIA driver")
    return Finding("gpu", "ok", "; ".join(done.stdout.strip().splitlines()))


def _disk(folder: Path) -> Finding:
    """Free room, and the speed of a durable write of 64 MiB."""
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".facemill-doctor-") as file:
            block = os.urandom(1 << 20)
            began = time.perf_counter()
            for _ in range(_PROBE_BYTES >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = _PROBE_BYTES / (time.perf_counter() - began)
    except OSError as err:
        return Finding("disk", "wrong", f"{folder}: {err.strerror}", "name another folder with --disk")
    return Finding("disk", "ok", f"{folder}: {free / 1e9:.1f} GB free, {speed / 1e6:.0f} MB/s written durably")


def _cache() -> Finding:
    try:
        place = cache_dir("models").parent
        with tempfile.NamedTemporaryFile(dir=place):
            return Finding("cache", "ok", str(place))
    except OSError as err:
        text = f"{err.filename or 'the cache folder'} cannot be written: {err.strerror}"
        return Finding("cache", "wrong", text, "export FACEMILL_CACHE=/a/folder/of/yours", needed=True)


def _models() -> list[Finding]:
    findings = []
    for spec in list_specs():
        place = None if spec.generator else find_weights(spec)
        if spec.generator:
            findings.append(Finding(spec.name, "info", "generated when needed; random weights, identifies nobody"))
        elif place is not None:
            findings.append(Finding(spec.name, "ok", str(place)))
        else:
            mend = (
                f"facemill models fetch {spec.name}" if spec.url else f"put {spec.file} into a FACEMILL_MODELS folder"
            )
            findings.append(Finding(spec.name, "info", "not on this machine", mend))
    return findings


def _backends(packages: list[Finding], gpu: Finding) -> list[Finding]:
    """Which backends of build-engine and process would run here, and why the others would not."""
    state = {f.topic: f.state for f in packages}
    if all(state.get(name) == "ok" for name in ("onnx", "onnxruntime")):
        findings = [Finding("cpu", "ok", "ONNX Runtime")]
    else:
        findings = [Finding("cpu", "missing", "onnx or onnxruntime is missing", "pip install facemill", needed=True)]
    if gpu.state != "ok":
        return [*findings, *(Finding(name, "info", "no usable NVIDIA GPU") for name in ("cuda", "tensorrt"))]
    if "CUDAExecutionProvider" in _providers():
        findings.append(Finding("cuda", "ok", "ONNX Runtime with CUDA"))
    else:
        mend = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        findings.append(Finding("cuda", "missing", "the installed onnxruntime has no CUDAExecutionProvider", mend))
    lacking = [n for n in ("cupy-cuda12x",) if state.get(n) != "ok"]
    if all(state.get(name) != "ok" for name in ("tensorrt-cu12", "tensorrt-rtx")):
        lacking.append("tensorrt-cu12 or tensorrt-rtx")
    if lacking:
        findings.append(Finding("tensorrt", "missing", f"without {', '.join(lacking)}", "pip install 'facemill[gpu]'"))
    else:
        findings.append(Finding("tensorrt", "ok", "TensorRT"))
    return findings


def _providers() -> str:
    code = "import onnxruntime; print(*onnxruntime.get_available_providers())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout
