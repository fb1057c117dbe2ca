#!/usr/bin/env python3
"""What only a GPU can show: checks, figures, one table. Meant for eight minutes; docs/gpu.md says what is against it.

    python benchmarks/gpu_acceptance.py
    python benchmarks/gpu_acceptance.py --only device engine --out /tmp/acceptance
    python benchmarks/gpu_acceptance.py --rehearse        # without a GPU: the script itself, on the CPU, small

Each step is a process of its own, so that none can take another one with it. A step whose packages are missing is
skipped with the reason. Exit code 0: every step passed or was skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_steps
from report import RESULTS, write_results

from runtime.engines.device import find_gpu

BUDGET_S = 470


def run_step(name: str, options: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """One step in a process of its own: its findings, or why there are none."""
    result = options.out / "steps" / f"{name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--step", name, "--out", str(options.out), "--data", str(options.data)]
    command += ["--model", options.model, *(["--rehearse"] if options.rehearse else [])]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=max(5.0, limit_s))
        words, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as err:
        parts = (err.stdout or b"", err.stderr or b"")
        words = "".join(p.decode(errors="replace") if isinstance(p, bytes) else p for p in parts)
        code = -1
    (options.out / "steps" / f"{name}.log").write_text(words)
    took = time.perf_counter() - began
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text())
    elif code == -1:
        found = {"outcome": "failed", "summary": f"stopped after {limit_s:.0f} s"}
    else:
        last = (words.strip().splitlines() or ["no output"])[-1]
        found = {"outcome": "failed", "summary": f"ended with {code}: {last[:300]}"}
    return {"step": name, "seconds": round(took, 1), **found}


def one_step(name: str, options: argparse.Namespace) -> None:
    """Run a step in this process and write its findings."""
    setting = gpu_steps.Setting(options.out, options.data, options.model, options.rehearse)
    try:
        found = gpu_steps.STEPS[name].work(setting)
    except gpu_steps.SkipStep as err:
        found = {"outcome": "skipped", "summary": str(err)}
    except Exception as err:
        import traceback

        traceback.print_exc()
        found = {"outcome": "failed", "summary": f"{type(err).__name__}: {err}"[:2000]}
    (options.out / "steps" / f"{name}.json").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(gpu_steps.STEPS), help="these steps alone")
    parser.add_argument("--model", default="random-512", help="default: random-512, which needs no download")
    parser.add_argument("--rehearse", action="store_true", help="try the script on a machine without a GPU")
    parser.add_argument("--data", type=Path, default=Path("/tmp/facemill-bench"), help="folder for photographs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out, options.data = options.out.absolute(), options.data.absolute()
    for folder in (options.out / "steps", options.data):
        folder.mkdir(parents=True, exist_ok=True)
    if options.step:
        one_step(options.step, options)
        return
    os.environ.setdefault("FACEMILL_CACHE", str(options.data / "cache"))
    began = time.perf_counter()
    setting = gpu_steps.Setting(options.out, options.data, options.model, options.rehearse)
    drawing = gpu_steps.start_drawing(setting) if options.rehearse or find_gpu() is not None else None
    found = []
    for name in options.only or gpu_steps.STEPS:
        left = BUDGET_S - (time.perf_counter() - began)
        found.append(run_step(name, options, min(left, gpu_steps.STEPS[name].limit_s)))
        print(f"{found[-1]['step']:<12} {found[-1]['outcome']:<8} {found[-1]['summary'].splitlines()[0]}", flush=True)
    if drawing is not None and drawing.poll() is None:
        os.killpg(drawing.pid, signal.SIGKILL)  # its workers too
    report(found, options)
    raise SystemExit(1 if any(step["outcome"] == "failed" for step in found) else 0)


def report(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table, and all findings as JSON."""
    device = next((step.get("device") for step in found if step.get("device")), None)
    slug = "rehearsal" if options.rehearse else re.sub(r"\W+", "-", str(device or "no gpu")).strip("-").lower()
    columns = ("step", "outcome", "seconds", "summary")
    notes = [f"{step['step']}: {note}" for step in found for note in step.get("notes", [])]
    if options.rehearse:
        notes.insert(0, "A rehearsal of the script on the CPU: no figure here is a GPU's")
    write_results(
        f"gpu_acceptance_{slug}",
        f"GPU acceptance on {device or 'no GPU'}",
        [{c: str(step[c]).replace("\n", " ").replace("|", "/") for c in columns} for step in found],
        notes,
        folder=options.out,
        details=list(found),
    )


if __name__ == "__main__":
    main()
