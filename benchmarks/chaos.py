#!/usr/bin/env python3
"""Disturb runs at random moments, resume each until it finishes, and compare its file with an undisturbed run's.

    python benchmarks/chaos.py --runs 200
    python benchmarks/chaos.py --every-call
    python benchmarks/chaos.py --every-call merge repair --most 50
    python benchmarks/chaos.py --power-cuts

Each run is disturbed one to three times: by SIGKILL, by SIGTERM, or by a disk that is full at a random size. The same
command then resumes it. A run passes if that command exits 0, the file equals the undisturbed one in every dataset,
and the folder holds nothing else.

--every-call disturbs each command that writes at each of its file operations instead: killed there, one read error, a
disk that is full from there on. It needs a C compiler. tests/support/faults says what must hold; tests/faults tries a
sample of the operations.

--power-cuts cuts the power after each of these operations: on a modelled disk, what was not synced is lost in six
orders of writing. It also checks that nothing durable speaks of something that is not.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import material
from report import write_results

from tests.support.embedding_files import differences

if TYPE_CHECKING:
    from tests.support.faults.case import Case
    from tests.support.faults.laboratory import Laboratory


def disturb(kind: str, command: list[str], seconds: float, rng: random.Random) -> int:
    """Run the command, disturb it once, and return its exit code."""
    limit = rng.randint(2_000, 600_000)

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    limit_file_size: Callable[[], None] | None = full_disk if kind == "full disk" else None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limit_file_size
    ) as process:
        if kind != "full disk":
            time.sleep(rng.uniform(0, seconds))
            process.send_signal(signal.SIGKILL if kind == "SIGKILL" else signal.SIGTERM)
        _, errors = process.communicate()
    if b"Traceback" in errors:
        print(errors.decode(errors="replace"), file=sys.stderr)
        raise SystemExit(f"the command printed a traceback after {kind}")
    return process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="number of disturbed runs; default: 20")
    parser.add_argument("--every-call", nargs="*", metavar="COMMAND", help="commands to disturb; default: all")
    parser.add_argument("--power-cuts", nargs="*", metavar="COMMAND", help="commands to cut off; default: all")
    parser.add_argument("--most", type=int, metavar="N", help="operations or power cuts of each kind; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="random-128")
    parser.add_argument("--photographs", type=int, default=400, help="number of photos; default: 400")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    if options.power_cuts is not None:
        wrong = cut_power(options)
    elif options.every_call is not None:
        wrong = disturb_every_call(options)
    else:
        wrong = disturb_runs(options)
    sys.exit(1 if wrong else 0)


@contextmanager
def writing_cases(options: argparse.Namespace, names: list[str]) -> Iterator[tuple[dict[str, Case], Laboratory, Path]]:
    """The named commands that write, or all; a laboratory; and a folder for them."""
    from tests.support.faults.case import Templates
    from tests.support.faults.commands import writing_commands
    from tests.support.faults.laboratory import Laboratory
    from tests.support.model_files import write_tiny_model
    from tests.support.qdrant_stand_in import qdrant_stand_in

    with tempfile.TemporaryDirectory(dir=options.data) as scratch, qdrant_stand_in() as server:
        cache, model, templates, streams = (Path(scratch, name) for name in ("cache", "model", "templates", "streams"))
        for folder in (cache, model, templates, streams):
            folder.mkdir()
        os.environ["FACEMILL_CACHE"] = str(cache)
        cases = writing_commands(Templates(templates, write_tiny_model(model), server))
        unknown = [name for name in names if name not in cases]
        if unknown:
            raise SystemExit(f"got the command {unknown[0]}; expected: {', '.join(cases)}")
        with Laboratory(streams) as laboratory:
            yield {name: cases[name] for name in names or cases}, laboratory, Path(scratch) / "folder"


def cut_power(options: argparse.Namespace) -> int:
    """Cut the power after every operation of commands, or a sample; returns the number of violations."""
    from tests.support.faults.power_cuts import Recorded

    rows: list[dict[str, object]] = []
    wrong: list[str] = []
    with writing_cases(options, options.power_cuts) as (cases, laboratory, folder):
        for name, case in cases.items():
            before = len(wrong)
            recorded = Recorded(laboratory, case, folder, options.seed)
            wrong += [f"{name}: {text}" for text in recorded.unsynced]
            cuts = recorded.sample(options.most or len(recorded.cuts), random.Random(f"{options.seed} {name}"))
            for cut in cuts:
                wrong += [text.replace(str(folder), "") for text in recorded.violations(cut)]
            for text in wrong[before:]:
                print(text, file=sys.stderr, flush=True)
            row = {"command": name, "states": len(recorded.cuts), "tried": len(cuts), "violations": len(wrong) - before}
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    tried = sum(int(str(row["tried"])) for row in rows)
    write_results("power_cuts", f"{len(wrong)} violations at {tried:,} power cuts of {len(rows)} commands", rows, wrong)
    return len(wrong)


def disturb_every_call(options: argparse.Namespace) -> int:
    """Try every fault at every operation of commands, or at a sample; returns the number of violations."""
    from tests.support.faults.every_call import FAULTS

    rows: list[dict[str, object]] = []
    wrong: list[str] = []
    with writing_cases(options, options.every_call) as (cases, laboratory, folder):
        for case in cases.values():
            row, violations = disturb_command(laboratory, case, folder, options)
            wrong += [text.replace(str(folder), "") for text in violations]
            rows.append(row)
    number = sum(int(str(row[fault])) for row in rows for fault in FAULTS)
    write_results(
        "every_call",
        f"{len(wrong)} violations at {number:,} places of {len(rows)} commands",
        rows,
        [
            *wrong,
            "The column of a fault holds the number of operations at which the command was disturbed by it",
            f"Operations for each fault: {'all' if options.most is None else f'at most {options.most}, a sample'}",
        ],
    )
    return len(wrong)


def disturb_command(
    laboratory: Laboratory, case: Case, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, object], list[str]]:
    """Disturb one command; returns its row of the table, and what was wrong."""
    from tests.support.faults.every_call import FAULTS, operations, places, violations

    listed = operations(laboratory, case, folder)
    row: dict[str, object] = {"command": case.name}
    wrong: list[str] = []
    for fault in FAULTS:
        chosen = places(listed, fault, options.most, random.Random(f"{options.seed} {case.name} {fault}"))
        before = len(wrong)
        for number, operation in chosen:
            for violation in violations(laboratory, case, folder, fault, number, operation):
                wrong.append(str(violation))
                print(violation, file=sys.stderr, flush=True)
        row |= {fault: len(chosen), f"violations: {fault}": len(wrong) - before}
    print(row, file=sys.stderr, flush=True)
    return row, wrong


def disturb_runs(options: argparse.Namespace) -> int:
    """Disturb runs at random moments; returns the number of runs that ended wrongly."""
    photos = material.draw_portraits(options.data, options.photographs, (112, 112))
    engine = material.build(options.model, options.data, precision="fp32")
    base = [sys.executable, str(material.ROOT / "process.py"), str(photos), "--align", "none", "--engine", str(engine)]
    base += ["--segment-rows", "64", "--segment-seconds", "0.3", "--batch-size", "8"]
    rng = random.Random(options.seed)
    disturbances: Counter[str] = Counter()
    exits: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.data) as scratch:
        undisturbed = Path(scratch) / "whole.h5"
        began = time.perf_counter()
        subprocess.run([*base, "-o", str(undisturbed)], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        for number in range(options.runs):
            folder = Path(scratch) / f"{number}"
            folder.mkdir()
            command = [*base, "-o", str(folder / "o.h5")]
            kinds = [rng.choice(["SIGKILL", "SIGTERM", "full disk"]) for _ in range(rng.randint(1, 3))]
            for kind in kinds:
                disturbances[kind] += 1
                exits[f"{kind}: exit {disturb(kind, command, seconds, rng)}"] += 1
            result = subprocess.run(command, capture_output=True, text=True)
            fault = find_fault(result, folder, undisturbed)
            if fault:
                wrong.append(f"run {number} ({', '.join(kinds)}): {fault}")
                print(wrong[-1], file=sys.stderr, flush=True)
            print(f"\r{number + 1} of {options.runs}, {len(wrong)} wrong", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    right = options.runs - len(wrong)
    write_results(
        "chaos",
        f"{right} of {options.runs} disturbed runs finished with the correct file",
        [{"disturbance": kind, "times": count} for kind, count in sorted(disturbances.items())],
        [
            *wrong,
            f"{options.photographs} photos, segments of 64; an undisturbed run takes {seconds:.1f} s; signals "
            "arrive at a uniformly random moment of it",
            "Exits of the disturbed commands: " + ", ".join(f"{k} x {v}" for k, v in sorted(exits.items())),
        ],
    )
    return len(wrong)


def find_fault(result: subprocess.CompletedProcess[str], folder: Path, undisturbed: Path) -> str:
    """Say what is wrong with a finished run; empty if nothing is."""
    if result.returncode != 0:
        return f"exit {result.returncode}: {result.stderr[-500:]}"
    names = sorted(p.name for p in folder.iterdir())
    if names != ["o.h5"]:
        return f"files in the folder: {names}; expected: only o.h5"
    datasets = differences(folder / "o.h5", undisturbed)
    return f"differs in {datasets}" if datasets else ""


if __name__ == "__main__":
    main()
