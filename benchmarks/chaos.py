#!/usr/bin/env python3
"""Disturb runs at random moments, go on until each ends, and compare the file with an undisturbed run's.

    python benchmarks/chaos.py --runs 200

A run is disturbed up to three times, each time by SIGKILL, SIGTERM or a disk that is full at a random size, and then
goes on with the same command. It counts as right if that command exits 0, the file equals the undisturbed one in
every dataset, and nothing else is left in the folder.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import material
from report import write_results

from tests.support.embedding_files import differences


def disturb(kind: str, command: list[str], seconds: float, chance: random.Random) -> int:
    """Run the command and trouble it once; returns its exit code."""
    limit = chance.randint(2_000, 600_000)

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    before: Callable[[], None] | None = full_disk if kind == "full disk" else None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=before) as process:
        if kind != "full disk":
            time.sleep(chance.uniform(0, seconds))
            process.send_signal(signal.SIGKILL if kind == "SIGKILL" else signal.SIGTERM)
        _, errors = process.communicate()
    if b"Traceback" in errors:
        print(errors.decode(errors="replace"), file=sys.stderr)
        raise SystemExit(f"a traceback after {kind}")
    return process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="random-128")
    parser.add_argument("--photographs", type=int, default=400)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.photographs(options.data, options.photographs, (112, 112))
    engine = material.build(options.model, options.data, precision="fp32")
    base = [sys.executable, str(material.ROOT / "process.py"), str(photos), "--align", "none", "--engine", str(engine)]
    base += ["--segment-rows", "64", "--segment-seconds", "0.3", "--batch-size", "8"]
    chance = random.Random(options.seed)
    disturbances: Counter[str] = Counter()
    exits: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.data) as scratch:
        whole = Path(scratch) / "whole.h5"
        began = time.perf_counter()
        subprocess.run([*base, "-o", str(whole)], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        for number in range(options.runs):
            folder = Path(scratch) / f"{number}"
            folder.mkdir()
            command = [*base, "-o", str(folder / "o.h5")]
            story = [chance.choice(["SIGKILL", "SIGTERM", "full disk"]) for _ in range(chance.randint(1, 3))]
            for kind in story:
                disturbances[kind] += 1
                exits[f"{kind}: exit {disturb(kind, command, seconds, chance)}"] += 1
            done = subprocess.run(command, capture_output=True, text=True)
            trouble = judge(done, folder, whole)
            if trouble:
                wrong.append(f"run {number} ({', '.join(story)}): {trouble}")
                print(wrong[-1], file=sys.stderr, flush=True)
            print(f"\r{number + 1} of {options.runs}, {len(wrong)} wrong", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    right = options.runs - len(wrong)
    write_results(
        "chaos",
        f"{right} of {options.runs} disturbed runs ended with the right file",
        [{"disturbance": kind, "times": count} for kind, count in sorted(disturbances.items())],
        [
            *wrong,
            f"{options.photographs} photographs, segments of 64; an undisturbed run takes {seconds:.1f} s, and signals "
            "came at a uniformly random moment of that time",
            "How the disturbed commands ended: " + ", ".join(f"{k} x {v}" for k, v in sorted(exits.items())),
        ],
    )
    sys.exit(1 if wrong else 0)


def judge(done: subprocess.CompletedProcess[str], folder: Path, whole: Path) -> str:
    """What is wrong with how a run ended; empty when nothing is."""
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr[-500:]}"
    left = sorted(p.name for p in folder.iterdir())
    if left != ["o.h5"]:
        return f"left behind: {left}"
    differ = differences(folder / "o.h5", whole)
    return f"differs in {differ}" if differ else ""


if __name__ == "__main__":
    main()
