#!/usr/bin/env python3
"""The tuner beside an exhaustive search: what its settings give, of the best fixed settings there are.

    python benchmarks/tuner.py --model mobilefacenet-128
    python benchmarks/tuner.py --model mobilefacenet-128 --precision int8 --calibration CROPS

Every batch size, shape of the engine's calls and number of decoders runs the whole pipeline once; the best few of them
then take turns with what the tuner finds, afresh in each round.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import material
from report import write_results
from scale import calibration_of

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
FINALISTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="default: random-128")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--calibration", type=Path, help="aligned crops for INT8, in place of synthetic ones")
    parser.add_argument(
        "--count", type=int, default=6000, help="photographs of a run; default: 6000; a third of them in the first pass"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.photographs(options.data, options.count, (112, 112))
    engine = material.build(options.model, options.data, "cpu", options.precision, calibration_of(options))

    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.pipeline.settings import Settings, usable_cores
    from runtime.pipeline.tuning import recall_settings, remember_settings, settings_file

    info = engine.info
    cores = usable_cores()
    every = [
        Settings(size, streams, threads, decoders)
        for size, (streams, threads), decoders in itertools.product(
            SIZES, sorted({(cores, 1), (1, cores), (1, 1)}), range(1, cores + 1)
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FACEMILL_CACHE"] = folder
        request = Request((str(photos),), Path(folder) / "out.h5", engine, force=True, faces=FaceRules("none"))

        def rate(settings: Settings, limit: int | None = None) -> float:
            remember_settings(info, "opencv", settings)
            return process(replace(request, limit=limit)).images_per_s

        def tuned() -> Settings:
            settings_file(info, "opencv").unlink(missing_ok=True)
            process(replace(request, limit=1024))
            found = recall_settings(info, "opencv")
            assert found is not None
            return found

        tuned()  # warms the disk cache too
        once = {settings: rate(settings, options.count // 3) for settings in every}
        finalists = sorted(once, key=lambda settings: -once[settings])[:FINALISTS]
        rounds: list[dict[str, float]] = []
        chosen: list[Settings] = []
        for number in range(options.rounds):
            chosen.append(tuned())
            entries = [("the tuner's", chosen[-1]), *((describe(settings), settings) for settings in finalists)]
            turn = number % len(entries)  # another one comes first in each round
            taken = {name: rate(settings) for name, settings in entries[turn:] + entries[:turn]}
            one = {name: taken[name] for name, _ in entries}
            rounds.append(one)
            print(f"round {number + 1}: " + "; ".join(f"{name} {value:.0f}" for name, value in one.items()), flush=True)
    write_results(
        f"tuner_{options.model}_{options.precision}",
        f"The tuner beside {len(every)} fixed settings: {options.count:,} JPEGs of 112x112, {engine.path.name}",
        table(rounds),
        [
            f"Medians of {options.rounds} rounds, ratios within a round. The tuner found, round by round: "
            + "; ".join(map(describe, chosen)),
            "All settings once, over a third of the photographs, images/s: "
            + "; ".join(f"{describe(s)}: {value:.0f}" for s, value in once.items()),
        ],
        details={"rounds": rounds},
    )


def describe(settings: object) -> str:
    """E.g. "8 x 2 x 1, 2": images a call, calls at once, threads a call, decoders."""
    from runtime.pipeline.settings import Settings

    assert isinstance(settings, Settings)
    return f"{settings.batch_size} x {settings.streams} x {settings.threads}, {settings.decoders}"


def table(rounds: Sequence[dict[str, float]]) -> list[dict[str, object]]:
    """Medians, and what the tuner's settings give of each."""
    return [
        {
            "batch x calls x threads, decoders": name,
            "images/s": statistics.median(one[name] for one in rounds),
            "tuner to it": statistics.median(one["the tuner's"] / one[name] for one in rounds),
        }
        for name in rounds[0]
    ]


if __name__ == "__main__":
    main()
