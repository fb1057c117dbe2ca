#!/usr/bin/env python3
"""Measure how memory and start time grow with the number of photos, and how speed grows with cores.

python benchmarks/scale.py memory                     # 20,000 photos, and the same photos ten times
python benchmarks/scale.py memory --times 50          # and a million
python benchmarks/scale.py start --count 1000000      # a list of a million, fresh, resumed and finished
python benchmarks/scale.py first                      # whole commands that embed one photo
python benchmarks/scale.py cores                      # the same run pinned to one core and to two, alternating
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import material
from report import write_results


def measure_peak_memory(arguments: list[str]) -> int:
    """Peak resident memory of a run in bytes, by the kernel's count."""
    process = subprocess.Popen([sys.executable, str(material.ROOT / "process.py"), "--align", "none", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    return usage.ru_maxrss * 1024


def measure_memory(options: argparse.Namespace) -> None:
    photos = material.draw_portraits(options.data, options.photographs, (112, 112))
    engine = material.build(options.model, options.data, "cpu", options.precision, calibration_folder(options))
    names = [str(p) for p in sorted(photos.rglob("*.jpg"))]
    rows = []
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        for times in (1, options.times):
            listing = Path(folder) / f"{times}.txt"
            listing.write_text("\n".join(names * times))
            output = str(Path(folder) / f"{times}.h5")
            began = time.perf_counter()
            peak = measure_peak_memory([f"@{listing}", "-o", output, "--engine", str(engine), "--batch-size", "8"])
            rate = len(names) * times / (time.perf_counter() - began)
            rows.append({"photographs": len(names) * times, "peak resident MB": peak / 1e6, "images/s": rate})
    difference = (peak - float(str(rows[0]["peak resident MB"])) * 1e6) / 1e6
    write_results(
        "scale_memory",
        f"Peak memory of a run over {len(names):,} photos, and over {options.times} times as many",
        rows,
        [
            f"Difference: {difference:.0f} MB",
            f"{engine.path.name}; one run each; peak resident memory by the kernel's count (ru_maxrss)",
        ],
    )


def time_first_photo(arguments: list[str], log: Path) -> float:
    """Seconds from the command to the first photo, by the run's log. The run is then stopped."""
    log.unlink(missing_ok=True)
    command = [sys.executable, str(material.ROOT / "process.py"), *arguments, "--log", str(log)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if log.exists() and "photos to process" in log.read_text():
                elapsed_s = time.perf_counter() - began
                process.send_signal(signal.SIGTERM)
                process.wait()
                return elapsed_s
            time.sleep(0.02)
    raise SystemExit(f"the run exited with {process.returncode} before its first photo; see {log}")


def time_finished_run(arguments: list[str]) -> float:
    """Seconds of a run that has nothing to do."""
    began = time.perf_counter()
    result = subprocess.run(
        [sys.executable, str(material.ROOT / "process.py"), "--align", "none", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    if "nothing to do" not in result.stderr:
        raise SystemExit("the run processed photos; expected: nothing to do")
    return time.perf_counter() - began


def write_segments(output: Path, count: int, dimension: int, leave: int) -> None:
    """Add segments to an interrupted run of `count` rows, for all but the last `leave`."""
    import numpy as np

    from runtime.records import Embedded
    from runtime.storage.runfolder import RunFolder
    from runtime.storage.segments import SegmentRules, SegmentWriter

    rng = np.random.default_rng(0)
    with RunFolder(output) as folder:
        plan = folder.read_plan()
        assert plan is not None
        writer = SegmentWriter(
            folder.path, plan_id=plan.plan_id, dimension=dimension, dtype="float32", digests=False, rules=SegmentRules()
        )
        for start in range(0, count - leave, 4096):
            rows = np.arange(start, min(start + 4096, count - leave))
            vectors = rng.standard_normal((len(rows), dimension), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            writer.append(Embedded(rows, embeddings=vectors))
        writer.commit()


def measure_start(options: argparse.Namespace) -> None:
    photos = material.draw_portraits(options.data, 1000, (112, 112))
    engine = material.build(options.model, options.data, precision="fp32")
    dimension = engine.info.dimension
    originals = [str(p) for p in sorted(photos.rglob("*.jpg"))]
    rows = []
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        listing = Path(folder) / "list.txt"
        # Paths are as long and as varied as in a real collection; the first ones lead to real photos.
        lines = [f"{Path(folder)}/photographs/{i // 1000:05d}/{i:08d}.jpg" for i in range(options.count)]
        for i in range(1000):  # only the first thousand exist: a run gets no further here
            target = Path(lines[i])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(originals[i % len(originals)])
        listing.write_text("\n".join(lines))
        output = Path(folder) / "o.h5"
        log = Path(folder) / "run.log"
        arguments = [f"@{listing}", "-o", str(output), "--engine", str(engine), "--batch-size", "8", "--workers", "1"]
        fresh, resumed = [], []
        parts, saved_parts = Path(f"{output}.parts"), Path(folder) / "kept"
        for _ in range(options.rounds):
            shutil.rmtree(parts, ignore_errors=True)
            fresh.append(time_first_photo(arguments, log))
        write_segments(output, options.count, dimension, leave=100)
        shutil.copytree(parts, saved_parts, copy_function=os.link)  # segments are never written to again
        for _ in range(options.rounds):
            shutil.rmtree(parts, ignore_errors=True)
            output.unlink(missing_ok=True)
            shutil.copytree(saved_parts, parts, copy_function=os.link)
            resumed.append(time_first_photo(arguments, log))
        subprocess.run(
            [sys.executable, str(material.ROOT / "process.py"), "--align", "none", *arguments],
            check=True,
            capture_output=True,
        )
        finished = [time_finished_run(arguments) for _ in range(options.rounds)]
    for state, times in (
        ("fresh: scan of the list", fresh),
        ("resumed: all but 100 done", resumed),
        ("finished: nothing to do", finished),
    ):
        rows.append({"what": state, "seconds": statistics.median(times), "worst": max(times), "runs": len(times)})
    write_results(
        "scale_start",
        f"Before the first photo: a list of {options.count:,} entries",
        rows,
        ["Whole commands, including the start of Python and the loading of the engine"],
    )


def measure_first_photo(options: argparse.Namespace) -> None:
    """Time whole commands that embed one photo, with the engine built and the settings known."""
    crop = next(material.draw_portraits(options.data, 1000, (112, 112), seed=1).rglob("*.jpg"))
    portrait = next(material.draw_portraits(options.data, 2000, (300, 400)).rglob("*.jpg"))
    engine = material.build(options.model, options.data, "cpu", "fp32")
    times: dict[str, list[float]] = {"a crop": [], "a portrait: found, aligned": [], "Python with NumPy, for scale": []}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "o.h5"
        program = [
            sys.executable,
            str(material.ROOT / "process.py"),
            "--engine",
            str(engine),
            "-o",
            str(output),
            "--force",
        ]
        commands = (
            [*program, "--align", "none", str(crop)],
            [*program, str(portrait)],
            [sys.executable, "-c", "import numpy"],
        )
        for turn in range(options.rounds + 1):  # the first warms up
            for command, seconds in zip(commands, times.values(), strict=True):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if turn:
                    seconds.append(time.perf_counter() - began)
    write_results(
        "scale_first",
        f"Whole commands that embed one photo, {options.model}: an upper bound for the first of many photos",
        [
            {"what": command_name, "seconds": statistics.median(t), "worst": max(t), "runs": len(t)}
            for command_name, t in times.items()
        ],
        ["From the start of Python to its exit, with the finished file written; the commands alternate"],
    )


def measure_cores(options: argparse.Namespace) -> None:
    """Process the same photos pinned to one core and to two."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit(f"{len(usable)} usable cores; expected: 2")
    photos = material.draw_portraits(options.data, options.photographs, (112, 112))
    engine = material.build(options.model, options.data, "cpu", options.precision, calibration_folder(options))
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "o.h5"
        command = [sys.executable, str(material.ROOT / "process.py"), str(photos), "-o", str(output), "--force"]
        for turn in range(options.rounds + 1):  # the first tunes
            for count, measured in rates.items():
                result = subprocess.run(
                    [*command, "--align", "none", "--engine", str(engine)],
                    check=True,
                    capture_output=True,
                    text=True,
                    preexec_fn=lambda count=count: os.sched_setaffinity(0, usable[:count]),
                )
                line = re.search(r"in this run, ([\d,.]+) images/s", result.stdout + result.stderr)
                assert line, result.stderr
                if turn:
                    measured.append(float(line[1].replace(",", "")))
    ratios = [two_cores / one_core for one_core, two_cores in zip(rates[1], rates[2], strict=True)]
    write_results(
        "scale_cores",
        f"Pinned to one core and to two: {options.photographs:,} JPEGs of 112x112, {engine.path.name}",
        [{"cores": count, "images/s": statistics.median(measured)} for count, measured in rates.items()],
        [
            f"Two to one: {statistics.median(ratios):.2f}; by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
            f"Medians of {options.rounds} rounds, alternating; ratios within a round",
        ],
    )


def calibration_folder(options: argparse.Namespace) -> Path | None:
    """Folder of crops to calibrate INT8 with; None for FP32."""
    if options.precision != "int8":
        return None
    return options.calibration or material.draw_portraits(options.data, 1000, (112, 112), seed=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = {"memory": measure_memory, "start": measure_start, "first": measure_first_photo, "cores": measure_cores}
    parser.add_argument("what", choices=jobs, help="what to measure")
    parser.add_argument("--model", default="random-128", help="embedding model; default: random-128")
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "int8"], help="precision for memory and cores; default: fp32"
    )
    parser.add_argument("--calibration", type=Path, help="folder of aligned crops for INT8; default: synthetic ones")
    parser.add_argument("--count", type=int, default=1_000_000, help="entries of the list for start; default: 1000000")
    parser.add_argument(
        "--photographs",
        type=int,
        default=20_000,
        help="number of photos for cores and for the smaller run of memory; default: 20000",
    )
    parser.add_argument(
        "--times", type=int, default=10, help="how many times as many photos the larger run of memory has; default: 10"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    jobs[options.what](options)


if __name__ == "__main__":
    main()
