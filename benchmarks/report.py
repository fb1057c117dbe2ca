"""Write a results file for every benchmark: figures, machine, versions and command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = (
    "numpy", "onnxruntime", "opencv-python-headless", "h5py", "faiss-cpu", "faiss-gpu", "tensorrt-rtx",
    "tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-cu12", "tensorrt-cu13", "nvidia-dali-cuda120",
    "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13", "cupy-cuda12x", "cupy-cuda13x", "pycuda",
)  # fmt: skip


def describe_machine() -> str:
    """Describe the machine: processor, cores available to this process, memory, and the GPU if there is one."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    sys.path.insert(0, str(RESULTS.parent.parent))
    from runtime.cuda.device import find_gpu

    gpu = find_gpu()
    gpu_label = f", {gpu.name} ({gpu.compute_capability})" if gpu else ""
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB{gpu_label}"


def read_versions() -> dict[str, str]:
    """Versions of Python, facemill and the packages that the figures depend on."""
    sys.path.insert(0, str(RESULTS.parent.parent))
    from runtime import __version__

    versions = {"facemill": __version__, "python": platform.python_version(), "kernel": platform.release()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def write_results(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, object]],
    notes: Sequence[str] = (),
    *,
    folder: Path = RESULTS,
    details: object = None,
    quiet: bool = False,
) -> None:
    """Write `results/<name>.json` and `.md` and print the table. A failure leaves the old files.

    A benchmark that may be stopped writes after each case, and prints only the last time.

    Args:
        name: name of the benchmark.
        title: one line that says what was measured.
        rows: rows of the table, empty before the first measurement; the first row's keys are the columns.
        notes: facts that a reader needs to judge the figures.
        folder: folder to write to.
        details: data behind the table, written to the JSON only.
        quiet: print nothing.
    """
    facts = {
        "title": title,
        "measured_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": read_versions(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_remove_folders(sys.argv[1:])]),
    }
    columns = list(rows[0]) if rows else []
    table = (
        ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] if rows else ["Nothing has been measured yet."]
    )
    table += ["| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows]
    lines = [
        f"# {title}",
        "",
        *table,
        "",
        *(f"- {note}" for note in notes),
        f"- Machine: {facts['machine']}",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in read_versions().items())}",
        f"- Command: `{facts['command']}`",
        f"- Measured: {facts['measured_utc']}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {**facts, "rows": [dict(row) for row in rows], "notes": list(notes)}
    if details is not None:
        content["details"] = details
    for suffix, text in ((".json", json.dumps(content, indent=2)), (".md", "\n".join(lines))):
        partial = folder / f".{name}{suffix}.{os.getpid()}"
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, folder / f"{name}{suffix}")
    if not quiet:
        print("\n".join(lines), flush=True)


def _remove_folders(arguments: Sequence[str]) -> list[str]:
    """Remove the folders of this machine from the arguments."""
    public = list(arguments)
    for option, word in (("--peer", "PYTHON"), ("--calibration", "CROPS")):
        if option in public:
            public[public.index(option) + 1] = word
    if "--data" in public:
        index = public.index("--data")
        del public[index : index + 2]
    return public


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
