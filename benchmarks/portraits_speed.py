#!/usr/bin/env python3
"""Portraits through detection, alignment and embedding, beside the sum of the stages and beside InsightFace.

    python benchmarks/portraits_speed.py --model mobilefacenet-128
    python benchmarks/portraits_speed.py --model mobilefacenet-128 --peer ENVIRONMENT/bin/python
    python benchmarks/portraits_speed.py --model mobilefacenet-128 --calibration CROPS/             # in INT8

The ceiling of a machine on which every stage wants the same cores is 1 / (the sum of the stages' own times per image,
each stage alone on all cores). Each round measures every stage, the whole pipeline, and InsightFace if its Python is
given (`pip install insightface onnxruntime opencv-python-headless`); ratios are taken within a round. InsightFace is
its own SCRFD class with `scrfd-500m` at 320x320 and its own ArcFace class with the same embedding model, one photograph
at a time.
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
from threads import seconds_of

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

BATCH = 32


def rate_of(work: Callable[[Any], Any], batches: Sequence[Any], threads: int) -> float:
    """Photographs per second of threads that do nothing but this stage's work."""
    return sum(map(len, batches)) / seconds_of(threads, lambda _, batch: work(batch), batches)


@dataclass(frozen=True)
class Alone:
    """The stages of the pipeline, each with what it is to work on."""

    stages: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]]
    threads: dict[str, int]

    def rates(self) -> dict[str, float]:
        return {name: rate_of(work, batches, self.threads[name]) for name, (work, batches) in self.stages.items()}


@contextmanager
def stages_alone(photos: Path, engine: Engine, detector: Engine, count: int, found: Any) -> Iterator[Alone]:
    """Every stage on the first photographs of a folder, all it needs in memory."""
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
        runner = stack.enter_context(open_runner(engine, threads=found.threads))
        finder = stack.enter_context(open_runner(detector, threads=1))
        read = Read(source)
        decode = DecodePhotos(info.channel_order, limits)
        detect = find_faces_with(finder, FaceRules("auto"), info, limits)
        embed = Embed(runner, BatchLimit(found.batch_size))
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
        yield Alone(work, {"read": cores, "decode": cores, "detect and align": cores, "embed": found.streams})


def peer_rate(python: str, listed: Path, detector: Path, weights: Path) -> tuple[float, int]:
    """InsightFace's photographs per second, and the faces that it found."""
    command = [python, str(Path(__file__).with_name("insightface_peer.py")), str(listed), str(detector), str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    return facts["photographs"] / facts["seconds"], facts["faces"]


def by_round(rounds: Sequence[dict[str, float]]) -> list[str]:
    """The whole pipeline's rates and its ratios to what ran beside it, round by round: what the medians hide."""
    whole = [one["whole pipeline"] for one in rounds]
    notes = [f"Whole pipeline by round, images/s: {', '.join(f'{rate:,.0f}' for rate in whole)}"]
    for name, words in (("ceiling", "the ceiling"), ("InsightFace", "InsightFace")):
        if name in rounds[0]:
            ratios = ", ".join(f"{rate / one[name]:.2f}" for rate, one in zip(whole, rounds, strict=True))
            rates = ", ".join(f"{one[name]:,.0f}" for one in rounds)
            notes.append(f"Whole pipeline to {words} by round: {ratios} ({name}, images/s: {rates})")
    return notes


def write_rounds(
    name: str,
    title: str,
    rounds: Sequence[dict[str, float]],
    stages: Container[str],
    notes: Sequence[str],
    **where: Any,
) -> None:
    """The results file: medians in the table, every round in the notes and in the JSON.

    Args:
        name, title: of the results.
        rounds: images/s by what was measured.
        stages: of them, those that ran alone on all cores.
        notes: what else a reader must know.
        where: as `write_results` takes it.
    """
    rows = [
        {
            "what": f"{what}, alone on all cores" if what in stages else what,
            "images/s": statistics.median(one[what] for one in rounds),
            "whole pipeline of it": statistics.median(one["whole pipeline"] / one[what] for one in rounds),
        }
        for what in rounds[0]
    ]
    medians = f"Medians of {len(rounds)} rounds; ratios within a round"
    write_results(name, title, rows, [medians, *by_round(rounds), *notes], details={"rounds": rounds}, **where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="default: random-128")
    parser.add_argument("--detector", default="yunet", help="default: yunet")
    parser.add_argument("--count", type=int, default=4000, help="photographs; default: 4000")
    parser.add_argument("--size", default="300x400", help="of the photographs; default: 300x400")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, in place of synthetic portraits")
    parser.add_argument("--calibration", type=Path, help="aligned crops: embed in INT8, calibrated on them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="Python with insightface")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    options.data.mkdir(parents=True, exist_ok=True)
    photos = options.photos or material.photographs(options.data, options.count, (int(width), int(height)))

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
    cv2.setNumThreads(1)
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.setdefault("FACEMILL_CACHE", str(folder))
        request = Request((str(photos),), folder / "out.h5", engine, limit=options.count, faces=FaceRules("auto"),
                          detector=detector)  # fmt: skip
        process(request)  # tunes, and warms the disk cache
        before = preparation_key(request)
        found = recall_settings(engine.info, before)
        assert found is not None, "fewer photographs than the tuner wants: --count 2000 and more"
        alone = stack.enter_context(stages_alone(photos, engine, detector, min(options.count, 1024), found))
        listed = folder / "list.txt"
        listed.write_text("\n".join(str(path) for path in sorted(photos.rglob("*.jpg"))[: options.count // 2]))
        faces = 0
        for number in range(options.rounds):
            one = alone.rates()
            one["ceiling"] = 1 / sum(1 / rate for rate in one.values())
            request.output.unlink()
            done = process(request)
            one["whole pipeline"] = done.images_per_s
            if options.peer:
                scrfd, weights = weights_for(load_spec("scrfd-500m")), weights_for(load_spec(options.model))
                one["InsightFace"], faces = peer_rate(options.peer, listed, scrfd, weights)
            rounds.append(one)
            print(f"round {number + 1}: " + ", ".join(f"{k} {v:,.0f}" for k, v in one.items()), flush=True)
    stages = ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in done.stages.items())
    kind = f"photographs of {options.photos.name}" if options.photos else f"synthetic portraits of {options.size}"
    notes = [
        "The ceiling is 1 / (sum of the stages' own times per image, each alone on all cores)",
        f"Tuned: batch {found.batch_size}, {found.streams} calls at once of {found.threads} threads",
        f"Split by stage in the last round, images/s of each stage's threads while they work: {stages}; {done.verdict}",
        f"Outcomes: {', '.join(f'{name} {value:,}' for name, value in done.outcomes.items() if value)}",
    ]
    if options.peer:
        notes.append(
            f"InsightFace found a face in {faces:,} of the {options.count // 2:,} photographs that it was given"
        )
    write_rounds(
        f"portraits_{options.model}_{options.photos.name if options.photos else options.size}"
        + ("_int8" if options.calibration else ""),
        f"Detection, alignment and embedding: {options.count:,} {kind}, {options.detector}, {options.model}, "
        f"{precision.upper()}",
        rounds,
        alone.stages,
        notes,
    )


if __name__ == "__main__":
    main()
