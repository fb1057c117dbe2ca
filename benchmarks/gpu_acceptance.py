#!/usr/bin/env python3
"""Check and measure everything that needs a GPU, and write one table, in eight minutes.

    python benchmarks/gpu_acceptance.py
    python benchmarks/gpu_acceptance.py --only device engine --out /tmp/acceptance
    python benchmarks/gpu_acceptance.py --rehearse        # try the script on the CPU, with few photos

Each step runs in its own process, so that a crash cannot end the others. A step may use its share of the time and the
time left over by earlier steps. A step that is stopped keeps its findings so far. A step whose packages are missing is
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
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_setting import Setting, SkipStep, start_drawing
from gpu_steps import STEPS
from report import RESULTS, write_results

from runtime.cuda.device import find_gpu

REHEARSAL = 2  # times the usual share: a rehearsal's machine has few cores
_EXIT_STOPPED = -signal.SIGKILL


def run_step(name: str, options: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """Run one step in its own process; returns its findings, or why there are none."""
    folder = options.out / "steps"
    result, log = folder / f"{name}.json", folder / f"{name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--step", name, "--seconds", str(limit_s), "--out", str(options.out)]
    command += ["--data", str(options.data), "--model", options.model, *(["--rehearse"] if options.rehearse else [])]
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = _EXIT_STOPPED
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.wait()
    timing = {"step": name, "seconds": round(time.perf_counter() - began, 1)}
    findings: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {"outcome": "failed"}
    if code == 0 and result.exists():
        return {**timing, **findings}
    last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
    reason = f"stopped after {limit_s:.0f} s" if code == _EXIT_STOPPED else f"ended with {code}: {last[:300]}"
    return {
        **timing,
        **findings,
        "outcome": "failed",
        "summary": "; ".join(filter(None, (reason, findings.get("summary")))),
    }


def execute_step(name: str, options: argparse.Namespace) -> None:
    """Run a step in this process and write its findings."""
    setting = make_setting(name, options)
    try:
        findings = STEPS[name].work(setting)
    except SkipStep as err:
        findings = {"outcome": "skipped", "summary": str(err)}
    except Exception as err:
        traceback.print_exc()
        path = setting.out / "steps" / f"{name}.json"
        findings = json.loads(path.read_text()) if path.exists() else {}
        findings |= {"outcome": "failed", "summary": f"{type(err).__name__}: {err}"[:2000]}
    setting.save_findings(findings)


def make_setting(name: str, options: argparse.Namespace) -> Setting:
    """Make the setting of a step; its deadline is --seconds from now."""
    end = time.monotonic() + options.seconds
    return Setting(name, options.out, options.data, options.model, options.rehearse, end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), help="run only these steps")
    parser.add_argument(
        "--model", default="facemill-512", help="embedding model; default: facemill-512, which ships with facemill"
    )
    parser.add_argument("--rehearse", action="store_true", help="try the script on a machine without a GPU")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("/tmp/facemill-bench"),
        help="folder for the photos; default: /tmp/facemill-bench",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results; default: benchmarks/results")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out, options.data = options.out.absolute(), options.data.absolute()
    for folder in (options.out / "steps", options.data):
        folder.mkdir(parents=True, exist_ok=True)
    if options.step:
        execute_step(options.step, options)
        return
    os.environ.setdefault("FACEMILL_CACHE", str(options.data / "cache"))
    began = time.perf_counter()
    gpu = find_gpu()
    drawing = start_drawing(make_setting("drawing", options)) if options.rehearse or gpu is not None else None
    findings, shares = [], 0.0
    for name in options.only or STEPS:
        shares += STEPS[name].share_s * (REHEARSAL if options.rehearse else 1)
        findings.append(run_step(name, options, shares - (time.perf_counter() - began)))
        print(
            f"{findings[-1]['step']:<12} {findings[-1]['outcome']:<8} {findings[-1]['summary'].splitlines()[0]}",
            flush=True,
        )
    if drawing is not None and drawing.poll() is None:
        os.killpg(drawing.pid, signal.SIGKILL)  # its workers too
    report(findings, options, f"{gpu.name} {gpu.compute_capability}" if gpu else "no GPU")
    raise SystemExit(1 if any(step["outcome"] == "failed" for step in findings) else 0)


def report(findings: Sequence[dict[str, Any]], options: argparse.Namespace, device: str) -> None:
    """Write the table, and all findings as JSON."""
    slug = "rehearsal" if options.rehearse else re.sub(r"\W+", "-", device).strip("-").lower()
    columns = ("step", "outcome", "seconds", "summary")
    notes = [f"{step['step']}: {note}" for step in findings for note in step.get("notes", [])]
    if options.rehearse:
        notes.insert(0, "A rehearsal of the script on the CPU: no figure here was measured on a GPU")
    write_results(
        f"gpu_acceptance_{slug}",
        f"GPU acceptance on {device}",
        [{c: str(step[c]).replace("\n", " ").replace("|", "/") for c in columns} for step in findings],
        notes,
        folder=options.out,
        details=list(findings),
    )


if __name__ == "__main__":
    main()
