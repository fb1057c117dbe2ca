#!/usr/bin/env python3
"""Compare detection, alignment and embedding of portraits with the sum of the stages and with InsightFace.

    python benchmarks/portraits_speed.py --model mobilefacenet-128
    python benchmarks/portraits_speed.py --model mobilefacenet-128 --peer ENVIRONMENT/bin/python
    python benchmarks/portraits_speed.py --model mobilefacenet-128 --calibration CROPS/             # INT8

If every stage competes for the same cores, the ceiling is 1 / (sum of the stages' times per image, each stage alone on
all cores). Each round measures every stage, the whole pipeline, and InsightFace if --peer names its Python
(`pip install insightface onnxruntime opencv-python-headless`); ratios are computed within a round. InsightFace runs its
own SCRFD class with `scrfd-500m` at 320x320 and its own ArcFace class with the same embedding model, one photo at a
time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import material
import numpy as np
from report import write_results
from threads import time_threads

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

BATCH = 32


def measure_stage(work: Callable[[Any], Any], batches: Sequence[Any], threads: int) -> float:
    """Photos per second of threads that run only this stage."""
    return sum(map(len, batches)) / time_threads(threads, lambda _, batch: work(batch), batches)


@dataclass(frozen=True)
class StagesAlone:
    """The stages of the pipeline, each with its input batches and its number of threads."""

    stages: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]]
    threads: dict[str, int]

    def measure(self) -> dict[str, float]:
        return {name: measure_stage(work, batches, self.threads[name]) for name, (work, batches) in self.stages.items()}


@contextmanager
def stages_alone(
    photos: Path, engine: Engine, detector: Engine, landmarks: Engine | None, count: int, settings: Any
) -> Iterator[StagesAlone]:
    """Open every stage, with its input from the first photos of a folder in memory."""
    from runtime.engines.backends import open_runner
    from runtime.faces.rules import FaceRules
    from runtime.images.decode import Limits
    from runtime.pipeline.face_work import DecodePhotos, find_faces_with
    from runtime.pipeline.work import BatchLimit, Embed, Read
    from runtime.records import Batch
    from runtime.sources.scan import scan

    info, limits = engine.info, Limits()
    source = scan([str(photos)], limit=count)
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(engine, threads=settings.threads))
        detector_runner = stack.enter_context(open_runner(detector, threads=1))
        look = None if landmarks is None else stack.enter_context(open_runner(landmarks, threads=1))
        read = Read(source)
        decode = DecodePhotos(info.channel_order, limits)
        detect = find_faces_with(detector_runner, FaceRules("auto"), info, limits, look)
        embed = Embed(runner, BatchLimit(settings.batch_size))
        rows = [Batch(np.arange(i, min(i + BATCH, count))) for i in range(0, count, BATCH)]
        files = [read(batch) for batch in rows]
        images = [decode(batch) for batch in files]
        crops = [detect(batch) for batch in images]
        cores = len(os.sched_getaffinity(0))
        work = {
            "read": (read, rows),
            "decode": (decode, files),
            "detect and align": (detect, images),
            "embed": (embed, crops),
        }
        yield StagesAlone(work, {"read": cores, "decode": cores, "detect and align": cores, "embed": settings.streams})


def measure_insightface(python: str, list_file: Path, detector: Path, weights: Path) -> tuple[float, int]:
    """Run InsightFace; returns photos per second and the number of faces found."""
    command = [
        python,
        str(Path(__file__).with_name("insightface_peer.py")),
        str(list_file),
        str(detector),
        str(weights),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = json.loads(result.stdout.splitlines()[-1])
    return facts["photographs"] / facts["seconds"], facts["faces"]


def describe_rounds(rounds: Sequence[dict[str, float]]) -> list[str]:
    """Describe the pipeline's rates and ratios round by round, which the medians hide."""
    pipeline_rates = [rates["whole pipeline"] for rates in rounds]
    notes = [f"Whole pipeline by round, images/s: {', '.join(f'{rate:,.0f}' for rate in pipeline_rates)}"]
    for name, label in (("ceiling", "the ceiling"), ("InsightFace", "InsightFace")):
        if name in rounds[0]:
            ratios = ", ".join(f"{rate / rates[name]:.2f}" for rate, rates in zip(pipeline_rates, rounds, strict=True))
            compared = ", ".join(f"{rates[name]:,.0f}" for rates in rounds)
            notes.append(f"Whole pipeline to {label} by round: {ratios} ({name}, images/s: {compared})")
    return notes


def write_rounds(
    name: str,
    title: str,
    rounds: Sequence[dict[str, float]],
    stages: Container[str],
    notes: Sequence[str],
    **options: Any,
) -> None:
    """Write the results: medians in the table, every round in the notes and in the JSON.

    Args:
        name: name of the results file.
        title: title of the table.
        rounds: images/s by name, for each round.
        stages: names of the stages, which ran alone on all cores.
        notes: further notes for the reader.
        where: options of `write_results`, such as the folder.
    """
    rows = [
        {
            "what": f"{part}, alone on all cores" if part in stages else part,
            "images/s": statistics.median(rates[part] for rates in rounds),
            "whole pipeline of it": statistics.median(rates["whole pipeline"] / rates[part] for rates in rounds),
        }
        for part in rounds[0]
    ]
    medians = f"Medians of {len(rounds)} rounds; ratios within a round"
    write_results(name, title, rows, [medians, *describe_rounds(rounds), *notes], details={"rounds": rounds}, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="embedding model; default: random-128")
    parser.add_argument("--detector", default="yunet", help="detector; default: yunet")
    parser.add_argument(
        "--landmarks", default="facemill-landmarks", help="landmark network, or none; default: the shipped"
    )
    parser.add_argument("--count", type=int, default=4000, help="number of photos; default: 4000")
    parser.add_argument(
        "--size", default="300x400", help="size of the photos, WIDTHxHEIGHT in pixels; default: 300x400"
    )
    parser.add_argument("--photos", type=Path, help="folder of photos; default: synthetic portraits")
    parser.add_argument("--calibration", type=Path, help="folder of aligned crops: embed in INT8, calibrated on them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="Python executable of an environment with insightface; default: leave it out")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    options.data.mkdir(parents=True, exist_ok=True)
    photos = options.photos or material.draw_portraits(options.data, options.count, (int(width), int(height)))

    import cv2

    from runtime.engines.weights import weights_for
    from runtime.faces.rules import FaceRules
    from runtime.modelspec import load_spec
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.pipeline.tuning import preparation_key, recall_settings

    precision = "int8" if options.calibration else "fp32"
    engine = material.build(options.model, options.data, precision=precision, calibration=options.calibration)
    detector = material.build(options.detector, options.data, precision="fp32")
    landmarks = (
        None if options.landmarks == "none" else material.build(options.landmarks, options.data, precision="fp32")
    )
    cv2.setNumThreads(1)
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.setdefault("FACEMILL_CACHE", str(folder))
        request = Request((str(photos),), folder / "out.h5", engine, limit=options.count, faces=FaceRules("auto"),
                          detector=detector, landmarks=landmarks)  # fmt: skip
        process(request)  # tunes and warms the disk cache
        state_key = preparation_key(request)
        settings = recall_settings(engine.info, state_key)
        assert settings is not None, "the tuner needs more photos; expected: --count 2000 or more"
        alone = stack.enter_context(
            stages_alone(photos, engine, detector, landmarks, min(options.count, 1024), settings)
        )
        list_file = folder / "list.txt"
        list_file.write_text("\n".join(str(path) for path in sorted(photos.rglob("*.jpg"))[: options.count // 2]))
        faces = 0
        for number in range(options.rounds):
            rates = alone.measure()
            rates["ceiling"] = 1 / sum(1 / rate for rate in rates.values())
            request.output.unlink()
            result = process(request)
            rates["whole pipeline"] = result.images_per_s
            if options.peer:
                scrfd, weights = weights_for(load_spec("scrfd-500m")), weights_for(load_spec(options.model))
                rates["InsightFace"], faces = measure_insightface(options.peer, list_file, scrfd, weights)
            rounds.append(rates)
            print(f"round {number + 1}: " + ", ".join(f"{k} {v:,.0f}" for k, v in rates.items()), flush=True)
    stages = ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in result.stages.items())
    kind = f"photos of {options.photos.name}" if options.photos else f"synthetic portraits of {options.size}"
    notes = [
        "The ceiling is 1 / (sum of the stages' times per image, each stage alone on all cores)",
        f"Tuned: batch {settings.batch_size}, {settings.streams} concurrent calls of {settings.threads} threads",
        f"Split by stage in the last round, images/s of each stage's threads while they work: {stages}; "
        f"{result.verdict}",
        f"Outcomes: {', '.join(f'{name} {value:,}' for name, value in result.outcomes.items() if value)}",
    ]
    if options.peer:
        notes.append(f"InsightFace found a face in {faces:,} of the {options.count // 2:,} photos it read")
    write_rounds(
        f"portraits_{options.model}_{options.photos.name if options.photos else options.size}"
        + ("_int8" if options.calibration else ""),
        f"Detection, alignment and embedding: {options.count:,} {kind}, {options.detector}, "
        f"landmarks {options.landmarks}, {options.model}, {precision.upper()}",
        rounds,
        alone.stages,
        notes,
    )


if __name__ == "__main__":
    main()
