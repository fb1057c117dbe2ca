"""What this machine has, for `facemill doctor`: processor, GPU, disk, packages, models, usable backends."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import __version__
from ..assets import cache_dir
from ..cuda.device import Gpu, find_gpu
from ..engines.backend import Backend
from ..engines.backends import BACKENDS
from ..engines.engine import read_engine
from ..errors import ConfigError, EngineError, ModelError
from ..modelspec import list_specs
from ..modelstore import find_weights
from .packages import PROVIDERS, Finding, base_packages, gpu_packages, install_extra, optional_packages

_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PROBE_BYTES = 64 << 20


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
    packages, first = base_packages(), find_gpu()
    gpu = _gpu(first)
    optional = gpu_packages(wanted=gpu.state == "ok")
    sections = {
        "machine": [*_machine(), gpu, _disk(disk), _cache()],
        "packages": packages,
        "packages for single commands": optional_packages(),
        "packages for a GPU": optional,
        "models": _models(),
        "backends": _backends([*packages, *optional], gpu),
        "GPU memory": _memory_plans(_gpu_memory(first) if first else None),
    }
    return Examination({name: group for name, group in sections.items() if group})


def _machine() -> list[Finding]:
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    facts = dict(re.findall(r"^(model name|flags)\s*:\s*(.+)$", cpu, re.MULTILINE))
    name, flags = facts.get("model name", "unknown"), set(facts.get("flags", "").split())
    features = ", ".join(f for f in _FEATURES if f in flags) or "none of " + ", ".join(_FEATURES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        Finding("facemill", "info", f"{__version__} on Python {platform.python_version()}"),
        Finding("system", "info", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("processor", "info", f"{name}, {len(os.sched_getaffinity(0))} cores usable"),
        Finding("features", "info", features),
        Finding("memory", "info", f"{memory:.1f} GiB"),
    ]


def _gpu(first: Gpu | None) -> Finding:
    """The GPU as the product finds it, and the driver in its own words."""
    words = _nvidia_smi("name,memory.total,compute_cap,driver_version", first)
    if first is not None:
        return Finding("gpu", "ok", f"{first.name}, {first.compute_capability}" + (f" ({words})" if words else ""))
    if words is None:
        return Finding("gpu", "info", "no NVIDIA driver; facemill runs on the CPU")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = "" if shown is None else f" with CUDA_VISIBLE_DEVICES={shown}"
    mend = "nvidia-smi   (until it lists the GPU: install the driver anew, or restart)"
    text = f"CUDA finds no GPU{where}; nvidia-smi says: {words or 'nothing'}"
    return Finding("gpu", "wrong", text, mend if shown is None else "unset CUDA_VISIBLE_DEVICES")


def _gpu_memory(first: Gpu) -> tuple[int, int] | None:
    """Free and total bytes of a GPU, by the driver's own tool."""
    words = _nvidia_smi("memory.free,memory.total", first, ",nounits")
    try:
        free, total = (int(word) << 20 for word in (words or "").split(","))
    except ValueError:
        return None
    return free, total


def _nvidia_smi(fields: str, gpu: Gpu | None, style: str = "") -> str | None:
    """What the driver's own tool says of one GPU, or of all; None without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    # By its place on the bus: nvidia-smi's numbers know neither CUDA_VISIBLE_DEVICES nor CUDA's order.
    which = [f"--id={gpu.pci_bus_id}"] if gpu else []
    query = [tool, f"--query-gpu={fields}", f"--format=csv,noheader{style}", *which]
    try:
        done = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as err:
        return str(err)
    return "; ".join((done.stdout.strip() or done.stderr.strip()).splitlines())


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
    except ImportError as err:
        return Finding("cache", "missing", f"its place is not known: {err}", "pip install platformdirs", needed=True)
    except (ConfigError, OSError) as err:
        return Finding("cache", "wrong", str(err), "export FACEMILL_CACHE=/a/folder/of/yours", needed=True)


def _models() -> list[Finding]:
    try:
        specs = list_specs()
        places = [None if spec.generator else find_weights(spec) for spec in specs]
    except ModelError as err:
        return [Finding("models", "wrong", str(err), "mend or remove that file, or: unset FACEMILL_MODELS")]
    except (ConfigError, ImportError, OSError) as err:  # of the cache folder, which has its own line
        return [Finding("models", "info", f"not looked for: {err}")]
    findings = []
    for spec, place in zip(specs, places, strict=True):
        if spec.generator:
            findings.append(Finding(spec.name, "info", "generated when needed; random weights, identifies nobody"))
        elif place is not None:
            findings.append(Finding(spec.name, "ok", str(place)))
        else:
            fetch, put = f"facemill models fetch {spec.name}", f"put {spec.file} into a FACEMILL_MODELS folder"
            findings.append(Finding(spec.name, "info", "not on this machine", fetch if spec.url else put))
    return findings


def _backends(packages: list[Finding], gpu: Finding) -> list[Finding]:
    """Which backends of build-engine and process would run here, and why the others would not."""
    bad = [f.topic for f in packages if f.needed and f.state != "ok"]
    if bad:
        findings = [Finding("cpu", "missing", f"without {', '.join(bad)}: see above", needed=True)]
    else:
        findings = [Finding("cpu", "ok", "ONNX Runtime")]
    good = {f.topic for f in packages if f.state == "ok"}
    modules = {module for module, names in PROVIDERS.items() if good & set(names)}
    for backend in reversed(BACKENDS):
        if backend.on_gpu:
            findings.append(_backend(backend, modules, gpu))
    return findings


def _backend(backend: Backend, modules: set[str], gpu: Finding) -> Finding:
    """Whether a backend would run on the GPU, given the modules that import."""
    if gpu.state != "ok":
        return Finding(backend.name, "info", "no usable NVIDIA GPU")
    lacking = [" or ".join(group) for group in backend.requires if not modules & set(group)]
    if lacking:
        fix = install_extra(backend.extra) if backend.extra else f"pip install {backend.requires[0][0]}"
        return Finding(backend.name, "missing", f"without {' and '.join(lacking)}", fix)
    fault = backend.find_fault()
    if fault is not None:
        return Finding(backend.name, "missing", fault.reason, fault.fix)
    slow = backend.keeps_photos and "nvidia.dali" not in modules
    return Finding(backend.name, "ok", backend.title + ("; without DALI the CPU decodes" if slow else ""))


def _memory_plans(memory: tuple[int, int] | None) -> list[Finding]:
    """Who would get how much of the GPU's memory, for every TensorRT engine that `process` has built here."""
    if memory is None:
        return []
    try:
        from ..engines.tensorrt.memory import plan_device
        from ..images.jpeg_runs import RUNS_BYTES

        engines = sorted(cache_dir("engines").glob("*.plan"))
    except (ConfigError, ImportError, OSError) as err:  # of the cache folder or a package, which have their own lines
        return [Finding("memory plans", "info", f"not made: {err}")]
    findings = []
    for engine in engines:
        try:
            info = read_engine(engine).info
            weights = engine.stat().st_size
            plan = plan_device(
                info, slots=3, weights=weights, context=info.context_bytes, decoder=RUNS_BYTES, memory=memory
            )
            findings.append(Finding(engine.name, "ok", str(plan)))
        except (EngineError, OSError) as err:
            findings.append(Finding(engine.name, "wrong", str(err)))
    text = "no TensorRT engine yet: how it would use the GPU's memory is shown here once there is one"
    return findings or [Finding("memory plans", "info", text)]
