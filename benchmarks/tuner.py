#!/usr/bin/env python3
"""Compare the tuner's settings with the best fixed settings of an exhaustive search.

    python benchmarks/tuner.py --model mobilefacenet-128
    python benchmarks/tuner.py --model mobilefacenet-128 --precision int8 --calibration CROPS

Every combination of batch size, calls of the engine and decoders runs the whole pipeline once. The best few then
alternate with the tuner, which tunes again in each round.
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
from scale import calibration_folder

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
FINALISTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="default: random-128")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"], help="precision; default: fp32")
    parser.add_argument("--calibration", type=Path, help="folder of aligned crops for INT8; default: synthetic ones")
    parser.add_argument(
        "--count", type=int, default=6000, help="photos per run, a third of them in the first pass; default: 6000"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.draw_portraits(options.data, options.count, (112, 112))
    engine = material.build(options.model, options.data, "cpu", options.precision, calibration_folder(options))

    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.pipeline.settings import Settings, usable_cores
    from runtime.pipeline.tuning import recall_settings, remember_settings, settings_file

    info = engine.info
    cores = usable_cores()
    all_settings = [
        Settings(size, streams, threads, decoders)
        for size, (streams, threads), decoders in itertools.product(
            SIZES, sorted({(cores, 1), (1, cores), (1, 1)}), range(1, cores + 1)
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FACEMILL_CACHE"] = folder
        request = Request((str(photos),), Path(folder) / "out.h5", engine, force=True, faces=FaceRules("none"))

        def measure_rate(settings: Settings, limit: int | None = None) -> float:
            remember_settings(info, "opencv", settings)
            return process(replace(request, limit=limit)).images_per_s

        def tune() -> Settings:
            settings_file(info, "opencv").unlink(missing_ok=True)
            process(replace(request, limit=1024))
            settings = recall_settings(info, "opencv")
            assert settings is not None
            return settings

        tune()  # warms the disk cache too
        rate_of_settings = {settings: measure_rate(settings, options.count // 3) for settings in all_settings}
        finalists = sorted(rate_of_settings, key=lambda settings: -rate_of_settings[settings])[:FINALISTS]
        rounds: list[dict[str, float]] = []
        chosen: list[Settings] = []
        for number in range(options.rounds):
            chosen.append(tune())
            entries = [("the tuner's", chosen[-1]), *((format_settings(settings), settings) for settings in finalists)]
            turn = number % len(entries)  # each round starts with a different entry
            measured = {name: measure_rate(settings) for name, settings in entries[turn:] + entries[:turn]}
            rates = {name: measured[name] for name, _ in entries}
            rounds.append(rates)
            print(
                f"round {number + 1}: " + "; ".join(f"{name} {value:.0f}" for name, value in rates.items()), flush=True
            )
    write_results(
        f"tuner_{options.model}_{options.precision}",
        f"The tuner compared with {len(all_settings)} fixed settings: {options.count:,} JPEGs of 112x112, "
        f"{engine.path.name}",
        summarise_rounds(rounds),
        [
            f"Medians of {options.rounds} rounds, ratios within a round. The tuner chose, round by round: "
            + "; ".join(map(format_settings, chosen)),
            "Every setting once, over a third of the photos, images/s: "
            + "; ".join(f"{format_settings(s)}: {value:.0f}" for s, value in rate_of_settings.items()),
        ],
        details={"rounds": rounds},
    )


def format_settings(settings: object) -> str:
    """Format settings, such as "8 x 2 x 1, 2": images per call, concurrent calls, threads per call, decoders."""
    from runtime.pipeline.settings import Settings

    assert isinstance(settings, Settings)
    return f"{settings.batch_size} x {settings.streams} x {settings.threads}, {settings.decoders}"


def summarise_rounds(rounds: Sequence[dict[str, float]]) -> list[dict[str, object]]:
    """Medians, and the ratio of the tuner's settings to each."""
    return [
        {
            "batch x calls x threads, decoders": name,
            "images/s": statistics.median(rates[name] for rates in rounds),
            "tuner to it": statistics.median(rates["the tuner's"] / rates[name] for rates in rounds),
        }
        for name in rounds[0]
    ]


if __name__ == "__main__":
    main()
