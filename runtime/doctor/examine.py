"""Examine this machine for `facemill doctor`: processor, GPU, disk, packages, models, usable backends."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
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

_FIX_MODEL = "fix or remove that file, or: unset FACEMILL_MODELS"
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PROBE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings by section, in the order to show them."""

    sections: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether the product would run on this machine's CPU."""
        findings = (finding for group in self.sections.values() for finding in group)
        return not any(finding.needed and finding.state in ("missing", "wrong") for finding in findings)

    def as_json(self) -> str:
        """Return one line of JSON."""
        sections = {name: [finding.to_dict() for finding in group] for name, group in self.sections.items()}
        return json.dumps({"healthy": self.healthy, **sections})


def examine(disk: Path) -> Examination:
    """Examine the whole machine.

    Args:
        disk: folder to measure free space and write speed of.
    """
    packages, first_gpu = base_packages(), find_gpu()
    gpu = _gpu(first_gpu)
    optional = gpu_packages(has_gpu=gpu.state == "ok")
    sections = {
        "machine": [*_machine(), gpu, _disk(disk), _cache()],
        "packages": packages,
        "packages for single commands": optional_packages(),
        "packages for a GPU": optional,
        "models": _models(),
        "backends": _backends([*packages, *optional], gpu),
        "GPU memory": _memory_plans(_gpu_memory(first_gpu) if first_gpu else None),
    }
    return Examination({name: group for name, group in sections.items() if group})


def _machine() -> list[Finding]:
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    facts = dict(re.findall(r"^(model name|flags)\s*:\s*(.+)$", cpu, re.MULTILINE))
    name, flags = facts.get("model name", "unknown"), set(facts.get("flags", "").split())
    features = ", ".join(feature for feature in _FEATURES if feature in flags) or "none of " + ", ".join(_FEATURES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        Finding("facemill", "info", f"{__version__} on Python {platform.python_version()}"),
        Finding("system", "info", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("processor", "info", f"{name}, {len(os.sched_getaffinity(0))} cores usable"),
        Finding("features", "info", features),
        Finding("memory", "info", f"{memory:.1f} GiB"),
    ]


def _gpu(gpu: Gpu | None) -> Finding:
    """Report the first GPU, with what nvidia-smi says of it."""
    report = _nvidia_smi("name,memory.total,compute_cap,driver_version", gpu)
    if gpu is not None:
        return Finding("gpu", "ok", f"{gpu.name}, {gpu.compute_capability}" + (f" ({report})" if report else ""))
    if report is None:
        return Finding("gpu", "info", "no NVIDIA driver; facemill runs on the CPU")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
    fix = "nvidia-smi   (until it lists the GPU: reinstall the driver, or restart)"
    text = f"CUDA finds no GPU{where}; nvidia-smi says: {report or 'nothing'}"
    return Finding("gpu", "wrong", text, fix if visible is None else "unset CUDA_VISIBLE_DEVICES")


def _gpu_memory(gpu: Gpu) -> tuple[int, int] | None:
    """Return free and total bytes of a GPU by nvidia-smi; None if unknown."""
    report = _nvidia_smi("memory.free,memory.total", gpu, ",nounits")
    try:
        free, total = (int(mib) << 20 for mib in (report or "").split(","))
    except ValueError:
        return None
    return free, total


def _nvidia_smi(fields: str, gpu: Gpu | None, style: str = "") -> str | None:
    """Return the output of nvidia-smi for one GPU, or for all; None if it is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    # By bus address: nvidia-smi's numbers ignore CUDA_VISIBLE_DEVICES and CUDA's order.
    selection = [f"--id={gpu.pci_bus_id}"] if gpu else []
    query = [tool, f"--query-gpu={fields}", f"--format=csv,noheader{style}", *selection]
    try:
        result = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as err:
        return str(err)
    return "; ".join((result.stdout.strip() or result.stderr.strip()).splitlines())


def _disk(folder: Path) -> Finding:
    """Measure the free space, and the speed of a durable write of 64 MiB."""
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".facemill-doctor-") as file:
            block = os.urandom(1 << 20)
            start = time.perf_counter()
            for _ in range(_PROBE_BYTES >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = _PROBE_BYTES / (time.perf_counter() - start)
    except OSError as err:
        return Finding("disk", "wrong", f"{folder}: {err.strerror}", "name another folder with --disk")
    return Finding("disk", "ok", f"{folder}: {free / 1e9:.1f} GB free, {speed / 1e6:.0f} MB/s written durably")


def _cache() -> Finding:
    try:
        folder = cache_dir("models").parent
        with tempfile.NamedTemporaryFile(dir=folder):
            return Finding("cache", "ok", str(folder))
    except ModuleNotFoundError as err:
        return Finding("cache", "missing", f"its folder is unknown: {err}", "pip install platformdirs", needed=True)
    except (ConfigError, ImportError, OSError) as err:
        return Finding("cache", "wrong", str(err), "export FACEMILL_CACHE=/path/to/a/folder", needed=True)


def _models() -> list[Finding]:
    broken: list[str] = []
    try:
        specs = list_specs(broken)
        weights = [None if spec.generator else find_weights(spec) for spec in specs]
    except ModelError as err:
        return [Finding("models", "wrong", str(err), _FIX_MODEL)]
    except (ConfigError, ImportError, OSError) as err:  # the cache folder has its own line
        return [Finding("models", "info", f"not checked: {err}")]
    findings = [Finding("models", "wrong", text, _FIX_MODEL) for text in broken]
    for spec, path in zip(specs, weights, strict=True):
        if spec.generator:
            findings.append(Finding(spec.name, "info", "generated when needed; random weights, cannot identify people"))
        elif path is not None:
            findings.append(Finding(spec.name, "ok", str(path)))
        else:
            fetch, copy = f"facemill models fetch {spec.name}", f"copy {spec.file} into a FACEMILL_MODELS folder"
            findings.append(Finding(spec.name, "info", "not on this machine", fetch if spec.url else copy))
    return findings


def _backends(packages: list[Finding], gpu: Finding) -> list[Finding]:
    """Report which backends of build-engine and process run here, and why the others do not."""
    broken = [finding.topic for finding in packages if finding.needed and finding.state != "ok"]
    working = {finding.topic for finding in packages if finding.state == "ok"}
    modules = {module for module, names in PROVIDERS.items() if working & set(names)}
    findings = []
    for backend in reversed(BACKENDS):
        if backend.on_gpu:
            findings.append(_backend(backend, modules, gpu))
        elif broken:
            findings.append(Finding(backend.name, "missing", f"without {', '.join(broken)}: see above", needed=True))
        else:
            findings.append(Finding(backend.name, "ok", backend.title))
    return findings


def _backend(backend: Backend, modules: set[str], gpu: Finding) -> Finding:
    """Report whether a backend runs on the GPU, given the modules that can be imported."""
    if gpu.state != "ok":
        return Finding(backend.name, "info", "no usable NVIDIA GPU")
    missing = [" or ".join(group) for group in backend.requires if not modules & set(group)]
    if missing:
        fix = install_extra(backend.extra) if backend.extra else f"pip install {backend.requires[0][0]}"
        return Finding(backend.name, "missing", f"without {' and '.join(missing)}", fix)
    fault = backend.find_fault()
    if fault is not None:
        return Finding(backend.name, "missing", fault.reason, fault.fix)
    slow = backend.keeps_photos and "nvidia.dali" not in modules
    return Finding(backend.name, "ok", backend.title + ("; without DALI, the CPU decodes" if slow else ""))


def _memory_plans(memory: tuple[int, int] | None) -> list[Finding]:
    """Report how each TensorRT engine that `process` has built here would use the GPU's memory."""
    if memory is None:
        return []
    try:
        from ..engines.tensorrt.memory import plan_device
        from ..images.jpeg_runs import RUNS_BYTES

        engines = sorted(cache_dir("engines").glob("*.plan"))
    except (ConfigError, ImportError, OSError) as err:  # the cache folder and the packages have their own lines
        return [Finding("memory plans", "info", f"not computed: {err}")]
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
    text = "no TensorRT engine is built yet; its use of GPU memory will be shown here"
    return findings or [Finding("memory plans", "info", text)]
