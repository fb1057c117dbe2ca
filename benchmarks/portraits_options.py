#!/usr/bin/env python3
"""Measure what the second look and the attributes cost: the same job with and without them, in turns.

    python benchmarks/portraits_options.py --model mobilefacenet-128
    python benchmarks/portraits_options.py --model mobilefacenet-128 --calibration CROPS/             # INT8

Each round runs each job once, in another order. CPU seconds count the threads of the whole process: unlike the rate,
they hardly change where other work runs on the same cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import material
from report import write_results

JOBS = ("--landmarks none", "default", "--attributes age,gender")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="embedding model; default: random-128")
    parser.add_argument("--detector", default="yunet", help="detector; default: yunet")
    parser.add_argument("--count", type=int, default=2000, help="number of photos; default: 2000")
    parser.add_argument("--calibration", type=Path, help="folder of aligned crops: embed in INT8, calibrated on them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.draw_portraits(options.data, options.count, (300, 400))

    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import AttributeReader, Request
    from runtime.pipeline.run import process

    precision = "int8" if options.calibration else "fp32"
    engine = material.build(options.model, options.data, precision=precision, calibration=options.calibration)
    detector, look, reader = (
        material.build(name, options.data, precision="fp32")
        for name in (options.detector, "facemill-landmarks", "facemill-attributes")
    )
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("FACEMILL_CACHE", name)
        faces = FaceRules("auto")
        plain = Request((str(photos),), Path(name) / "out.h5", engine, limit=options.count, faces=faces,
                        detector=detector)  # fmt: skip
        default = replace(plain, landmarks=look)
        read = replace(default, attributes=AttributeReader(("age", "gender"), reader))
        requests = dict(zip(JOBS, (plain, default, read), strict=True))
        for number in range(-1, options.rounds):  # the first round tunes, and fills the disk cache
            facts = {}
            for turn in range(len(JOBS)):
                job = JOBS[(number + turn) % len(JOBS)]
                start_s = time.process_time()
                result = process(requests[job])
                cpu_s = time.process_time() - start_s
                facts[job] = {"images/s": result.images_per_s, "CPU ms": 1000 * cpu_s / options.count}
                plain.output.unlink()
            if number >= 0:
                rounds.append(facts)
                print(f"round {number + 1}: {facts}", flush=True)
    rows = []
    for job in JOBS:
        rows.append({"job": job} | {
            what: f"{statistics.median(each[job][what] for each in rounds):.2f}" for what in ("images/s", "CPU ms")
        })  # fmt: skip
        for what, against in (("rate of the default", "images/s"), ("CPU of the default", "CPU ms")):
            ratios = [each[job][against] / each["default"][against] for each in rounds]
            rows[-1][what] = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    write_results(
        f"portraits_options_{options.model}" + ("_int8" if options.calibration else ""),
        f"The cost of the second look and of the attributes: {options.count:,} synthetic portraits of 300x400, "
        f"{options.detector}, {options.model}, {precision.upper()}",
        rows,
        [
            f"Medians of {options.rounds} rounds, in each of which every job ran once",
            "Ratios are those within a round: their median and their range",
            "CPU ms: CPU time of all threads for one photo",
        ],
        details={"rounds": rounds},
    )


if __name__ == "__main__":
    main()
