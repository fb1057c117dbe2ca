#!/usr/bin/env python3
"""Compare the whole pipeline with its engine alone: same process, same engine, same batch, same threads, alternating.

    python benchmarks/end_to_end.py --model mobilefacenet-128
    python benchmarks/end_to_end.py --model random-128 --count 5000     # no weights needed: the same architecture

The engine alone reads decoded crops from memory, in as many threads as the pipeline uses for inference, while nothing
else runs. Ratios are computed within each round; the table shows medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import material
import numpy as np
from numpy.typing import NDArray
from report import write_results
from threads import time_threads

if TYPE_CHECKING:
    from runtime.engines.engine import Engine


def engine_alone(
    engine: Engine, images: NDArray[np.uint8], count: int, batch: int, streams: int, threads: int
) -> float:
    """Images per second of `streams` threads that only call the engine, for `count` images in total."""
    from runtime.engines.backends import open_runner

    with open_runner(engine, threads=threads) as runner:
        runner.infer(images[:batch])  # warm-up

        def call(_: int, start: int) -> None:
            at = start % (len(images) - batch + 1)
            runner.infer(images[at : at + batch])

        return count / time_threads(streams, call, range(0, count, batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="embedding model; default: random-128")
    parser.add_argument("--count", type=int, default=20_000, help="number of photos; default: 20000")
    parser.add_argument(
        "--size", default="112x112", help="size of the photos, WIDTHxHEIGHT in pixels; default: 112x112"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.draw_portraits(options.data, options.count, (int(width), int(height)))

    import cv2

    from runtime.faces.rules import FaceRules
    from runtime.images.decode import decode_image
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.pipeline.tuning import recall_settings

    engine = material.build(options.model, options.data, precision="fp32")
    info = engine.info
    sample = sorted(photos.rglob("*.jpg"))[:1024]
    cv2.setNumThreads(1)
    images = np.stack([decode_image(p.read_bytes(), size=info.size, channel_order=info.channel_order) for p in sample])
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FACEMILL_CACHE", folder)
        output = Path(folder) / "out.h5"
        process(
            Request((str(photos),), output, engine, limit=2048, faces=FaceRules("none"))
        )  # tunes and warms the disk cache
        settings = recall_settings(info, "opencv")
        assert settings is not None
        rates: list[tuple[float, float]] = []
        for number in range(options.rounds):
            alone = engine_alone(
                engine, images, options.count // 2, settings.batch_size, settings.streams, settings.threads
            )
            output.unlink()
            result = process(Request((str(photos),), output, engine, faces=FaceRules("none")))
            rates.append((result.images_per_s, alone))
            print(f"round {number + 1}: {result.images_per_s:.0f} whole, {alone:.0f} engine alone", flush=True)
    stages = ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in result.stages.items())
    write_results(
        f"end_to_end_{options.model}_{options.size}",
        f"End to end compared with the engine alone: {options.count:,} JPEGs of {options.size}, {options.model}, FP32",
        [
            {"what": "engine alone", "images/s": statistics.median(a for _, a in rates), "of the engine": 1.0},
            {
                "what": "whole pipeline",
                "images/s": statistics.median(w for w, _ in rates),
                "of the engine": statistics.median(w / a for w, a in rates),
            },
        ],
        [
            f"Medians of {options.rounds} rounds, alternating in one process; ratios within a round: "
            + ", ".join(f"{w / a:.3f}" for w, a in rates),
            f"Settings found by the tuner: batch {settings.batch_size}, {settings.streams} concurrent calls of "
            f"{settings.threads} threads, {settings.decoders} decoders, {settings.readers} readers",
            f"Split by stage in the last round, images/s of each stage's threads while they work: {stages}; "
            f"{result.verdict}",
        ],
    )


if __name__ == "__main__":
    main()
