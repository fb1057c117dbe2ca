#!/usr/bin/env python3
"""What only a GPU can show: checks, figures, one table, in eight minutes.

    python benchmarks/gpu_acceptance.py
    python benchmarks/gpu_acceptance.py --only device engine --out /tmp/acceptance
    python benchmarks/gpu_acceptance.py --rehearse        # without a GPU: the script itself, on the CPU, small

Each step is a process of its own, so that none can take another one with it. It may take its share of the time, and
what the steps before it have left over; what it has found when it is stopped counts. A step whose packages are missing
is skipped with the reason. Exit code 0: every step passed or was skipped.
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
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_setting import Setting, SkipStep, start_drawing
from gpu_steps import STEPS
from report import RESULTS, write_results

from runtime.cuda.device import find_gpu

REHEARSAL = 2  # a rehearsal's machine has few cores
_STOPPED = -signal.SIGKILL


def run_step(name: str, options: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """One step in a process of its own: its findings, or why there are none."""
    folder = options.out / "steps"
    result, log = folder / f"{name}.json", folder / f"{name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--step", name, "--seconds", str(limit_s), "--out", str(options.out)]
    command += ["--data", str(options.data), "--model", options.model, *(["--rehearse"] if options.rehearse else [])]
    began = time.perf_counter()
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = _STOPPED
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has begun, too
        process.wait()
    took = {"step": name, "seconds": round(time.perf_counter() - began, 1)}
    found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {"outcome": "failed"}
    if code == 0 and result.exists():
        return {**took, **found}
    last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
    why = f"stopped after {limit_s:.0f} s" if code == _STOPPED else f"ended with {code}: {last[:300]}"
    return {**took, **found, "outcome": "failed", "summary": "; ".join(filter(None, (why, found.get("summary"))))}


def one_step(name: str, options: argparse.Namespace) -> None:
    """Run a step in this process and write its findings."""
    setting = setting_of(name, options)
    try:
        found = STEPS[name].work(setting)
    except SkipStep as err:
        found = {"outcome": "skipped", "summary": str(err)}
    except Exception as err:
        traceback.print_exc()
        kept = setting.out / "steps" / f"{name}.json"
        found = json.loads(kept.read_text()) if kept.exists() else {}
        found |= {"outcome": "failed", "summary": f"{type(err).__name__}: {err}"[:2000]}
    setting.keep(found)


def setting_of(name: str, options: argparse.Namespace) -> Setting:
    """Where a step runs, and for how long."""
    end = time.monotonic() + options.seconds
    return Setting(name, options.out, options.data, options.model, options.rehearse, end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), help="these steps alone")
    parser.add_argument("--model", default="facemill-512", help="default: facemill-512, which is in this folder")
    parser.add_argument("--rehearse", action="store_true", help="try the script on a machine without a GPU")
    parser.add_argument("--data", type=Path, default=Path("/tmp/facemill-bench"), help="folder for photographs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out, options.data = options.out.absolute(), options.data.absolute()
    for folder in (options.out / "steps", options.data):
        folder.mkdir(parents=True, exist_ok=True)
    if options.step:
        one_step(options.step, options)
        return
    os.environ.setdefault("FACEMILL_CACHE", str(options.data / "cache"))
    began = time.perf_counter()
    gpu = find_gpu()
    drawing = start_drawing(setting_of("drawing", options)) if options.rehearse or gpu is not None else None
    found, shares = [], 0.0
    for name in options.only or STEPS:
        shares += STEPS[name].share_s * (REHEARSAL if options.rehearse else 1)
        found.append(run_step(name, options, shares - (time.perf_counter() - began)))
        print(f"{found[-1]['step']:<12} {found[-1]['outcome']:<8} {found[-1]['summary'].splitlines()[0]}", flush=True)
    if drawing is not None and drawing.poll() is None:
        os.killpg(drawing.pid, signal.SIGKILL)  # its workers too
    report(found, options, f"{gpu.name} {gpu.compute_capability}" if gpu else "no GPU")
    raise SystemExit(1 if any(step["outcome"] == "failed" for step in found) else 0)


def report(found: Sequence[dict[str, Any]], options: argparse.Namespace, device: str) -> None:
    """The table, and all findings as JSON."""
    slug = "rehearsal" if options.rehearse else re.sub(r"\W+", "-", device).strip("-").lower()
    columns = ("step", "outcome", "seconds", "summary")
    notes = [f"{step['step']}: {note}" for step in found for note in step.get("notes", [])]
    if options.rehearse:
        notes.insert(0, "A rehearsal of the script on the CPU: no figure here is a GPU's")
    write_results(
        f"gpu_acceptance_{slug}",
        f"GPU acceptance on {device}",
        [{c: str(step[c]).replace("\n", " ").replace("|", "/") for c in columns} for step in found],
        notes,
        folder=options.out,
        details=list(found),
    )


if __name__ == "__main__":
    main()
