#!/usr/bin/env python3
"""Embed aligned crops with facemill in FP32 and INT8, its engines alone, and other tools, alternating.

    python benchmarks/peers.py --model mobilefacenet-128 --peer ENVIRONMENT/bin/python
    python benchmarks/peers.py                                  # random-128, without InsightFace

The classic recipe is classic_recipe.py. InsightFace runs its own ArcFace class, one crop at a time, as its users do
(`pip install insightface onnxruntime opencv-python-headless`). DeepFace is left out, because it downloads its own
models at first use and accepts no ONNX file instead. Ratios are computed within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import material
import numpy as np
from end_to_end import engine_alone
from report import RESULTS, write_results


def measure_rate(python: str, script: str, *arguments: object) -> float:
    """Run a script; returns the photos per second that it reports."""
    command = [python, str(Path(__file__).with_name(script)), *map(str, arguments)]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return float(facts["photographs"] / facts["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-128", help="embedding model; default: random-128")
    parser.add_argument("--count", type=int, default=10_000, help="number of photos; default: 10000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calibration", type=Path, help="folder of aligned crops for INT8; default: synthetic ones")
    parser.add_argument("--peer", help="Python executable of an environment with insightface; default: leave it out")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    photos = material.draw_portraits(options.data, options.count, (112, 112))
    calibration = options.calibration or material.draw_portraits(options.data, 1000, (112, 112), seed=1)

    from runtime.engines.weights import weights_for
    from runtime.errors import EngineError
    from runtime.faces.rules import FaceRules
    from runtime.graphs.graph import load_graph
    from runtime.images.decode import decode_image
    from runtime.modelspec import load_spec
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.pipeline.tuning import recall_settings

    spec = load_spec(options.model)
    weights = weights_for(spec)
    engines, notes_on_int8 = {"fp32": material.build(options.model, options.data, "cpu", "fp32")}, []
    try:
        engines["int8"] = material.build(options.model, options.data, "cpu", "int8", calibration)
    except EngineError as err:
        notes_on_int8.append(f"No INT8: {err}")
    paths = sorted(photos.rglob("*.jpg"))
    images = np.stack([decode_image(p.read_bytes(), size=112, channel_order=spec.channel_order) for p in paths[:1024]])
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("FACEMILL_CACHE", name)
        free = folder / "free.onnx"  # some files fix the batch size at 1
        free.write_bytes(load_graph(weights, spec).SerializeToString())
        list_file = folder / "list.txt"
        list_file.write_text("\n".join(map(str, paths[: options.count // 4])))
        requests = {
            kind: Request((str(photos),), folder / f"{kind}.h5", engines[kind], faces=FaceRules("none"))
            for kind in engines
        }
        settings = {}
        for kind, request in requests.items():
            process(request)  # tunes and warms the disk cache
            settings[kind] = recall_settings(engines[kind].info, "opencv")
        if "int8" in requests:
            notes_on_int8.append(f"Cosine of INT8's embeddings to FP32's on these crops: {compare_rows(requests)}")
        for number in range(options.rounds):
            rates: dict[str, float] = {}
            stages = {}
            for kind, request in requests.items():
                tuned = settings[kind]
                rates[f"{kind.upper()} engine alone"] = engine_alone(
                    engines[kind], images, options.count // 2, tuned.batch_size, tuned.streams, tuned.threads
                )
                request.output.unlink()
                result = process(request)
                rates[f"facemill, {kind.upper()}"], stages[kind] = result.images_per_s, result.stages
            numbers = [",".join(map(str, values)) for values in (spec.mean, spec.std)]
            recipe = (list_file, free, folder / "classic.h5", spec.input_name or "input", spec.size, *numbers)
            rates["classic recipe"] = measure_rate(sys.executable, "classic_recipe.py", *recipe)
            if options.peer:
                rates["InsightFace"] = measure_rate(options.peer, "insightface_peer.py", list_file, "-", weights)
            rounds.append(rates)
            print(f"round {number + 1}: " + ", ".join(f"{k} {v:,.0f}" for k, v in rates.items()), flush=True)
    title = f"Aligned crops: {options.count:,} JPEGs of 112x112, {options.model}"
    rows = summarise_rounds(rounds)
    split = [
        f"Split by stage of {kind.upper()} in the last round, images/s of each stage's threads while they work: "
        + ", ".join(f"{name} {stage['images_per_s']:,.0f}" for name, stage in stages[kind].items())
        for kind in engines
    ]
    notes = [
        f"Medians of {len(rounds)} rounds; ratios within a round",
        *(f"{name} by round, images/s: {', '.join(f'{r[name]:,.0f}' for r in rounds)}" for name in rounds[0]),
        *split,
        *notes_on_int8,
        *(f"Tuned for {kind.upper()}: {settings[kind]}" for kind in engines),
    ]
    name = f"peers_{options.model}_112x112"
    write_results(name, title, rows, notes, details={"rounds": rounds})
    draw_bars(rows, title, RESULTS / f"{name}.png")


def summarise_rounds(rounds: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Medians, and the ratio of facemill's pipelines to each."""
    return [
        {
            "what": name,
            "images/s": statistics.median(rates[name] for rates in rounds),
            **{
                f"{ours} to it": statistics.median(rates[ours] / rates[name] for rates in rounds)
                for ours in rounds[0]
                if ours.startswith("facemill")
            },
        }
        for name in rounds[0]
    ]


def compare_rows(requests: dict[str, Any]) -> str:
    """Mean and smallest cosine of the two files' rows, which must be of the same photos."""
    import h5py

    with h5py.File(requests["fp32"].output) as a, h5py.File(requests["int8"].output) as b:
        assert (a["image_paths"][:] == b["image_paths"][:]).all(), "the files are of different photos"
        cosines = np.einsum("nd,nd->n", a["embeddings"][:], b["embeddings"][:])
    return f"mean {cosines.mean():.4f}, smallest {cosines.min():.4f}, of {len(cosines):,}"


def draw_bars(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the table as a bar chart."""
    from matplotlib.figure import Figure

    figure = Figure((8, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda row: row["images/s"])
    colours = ["#1f77b4" if row["what"].startswith("facemill") else "#b0b0b0" for row in ordered]
    bars = axes.barh([row["what"] for row in ordered], [row["images/s"] for row in ordered], color=colours)
    axes.bar_label(bars, [f"{row['images/s']:,.0f}" for row in ordered], padding=4)
    axes.set_xlabel("images/s, median; more is better")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
