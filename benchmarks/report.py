"""A results file for every figure: what was measured, where, with which versions and by which command."""

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


def machine() -> str:
    """The processor's own name, the cores that this process may use, and the GPU if there is one."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    sys.path.insert(0, str(RESULTS.parent.parent))
    from runtime.cuda.device import find_gpu

    gpu = find_gpu()
    words = f", {gpu.name} ({gpu.compute_capability})" if gpu else ""
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB{words}"


def versions() -> dict[str, str]:
    """Python, facemill and the packages that the figures depend on."""
    sys.path.insert(0, str(RESULTS.parent.parent))
    from runtime import __version__

    found = {"facemill": __version__, "python": platform.python_version(), "kernel": platform.release()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
    """Write `results/<name>.json` and `.md`, each whole or not at all, and print the table.

    A benchmark that may be stopped writes after each case it has measured, and prints the last time alone.

    Args:
        name: of the benchmark.
        title: one line: what was measured.
        rows: the table, empty while nothing is measured; the first row's keys are its columns.
        notes: what a reader must know to judge the figures.
        folder: where to write.
        details: for the JSON alone: what the table is made from.
        quiet: print nothing.
    """
    facts = {
        "title": title,
        "measured_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_telling(sys.argv[1:])]),
    }
    columns = list(rows[0]) if rows else []
    table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] if rows else ["Nothing is measured yet."]
    table += ["| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows]
    lines = [
        f"# {title}",
        "",
        *table,
        "",
        *(f"- {note}" for note in notes),
        f"- Machine: {facts['machine']}",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in versions().items())}",
        f"- Command: `{facts['command']}`",
        f"- Measured: {facts['measured_utc']}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {**facts, "rows": [dict(row) for row in rows], "notes": list(notes)}
    if details is not None:
        content["details"] = details
    for suffix, text in ((".json", json.dumps(content, indent=2)), (".md", "\n".join(lines))):
        new = folder / f".{name}{suffix}.{os.getpid()}"
        new.write_text(text + "\n", encoding="utf-8")
        os.replace(new, folder / f"{name}{suffix}")
    if not quiet:
        print("\n".join(lines), flush=True)


def _telling(arguments: Sequence[str]) -> list[str]:
    """The arguments without the folders of this machine, which tell a reader nothing."""
    kept = list(arguments)
    for option, word in (("--peer", "PYTHON"), ("--calibration", "CROPS")):
        if option in kept:
            kept[kept.index(option) + 1] = word
    if "--data" in kept:
        at = kept.index("--data")
        del kept[at : at + 2]
    return kept


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
