#!/usr/bin/env python3
"""Measure what the second look gives: portraits in the wild, and heads that are tilted.

    python benchmarks/second_look.py PORTRAITS/ --upright LFW/ --detector facemill-det

PORTRAITS/ has one subfolder per person: the true accept rate over all pairs is measured with and without the second
look. LFW/ has one subfolder per person too: one photo of some people is turned by 20, 30 and 45 degrees both ways on a
grey ground, and compared with the row of the same photo upright, as it is made with the same settings.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import material
import numpy as np
from numpy.typing import NDArray
from report import write_results

LOOKS = ("none", "facemill-landmarks")
ANGLES = (20, 30, 45)
PEOPLE = 100
_ENLARGED = 420  # pixels, long side of the turned photos
_GREY = (120, 120, 120)
_FAR = 1e-3


def true_accept_rate(vectors: NDArray[np.float32], person: NDArray[np.int64], rate: float = _FAR) -> float:
    """Share of the pairs of one person above the score that this share of the pairs of two people reaches."""
    first, second = np.triu_indices(len(vectors), 1)
    scores, same = (vectors @ vectors.T)[first, second], person[first] == person[second]
    impostors = np.sort(scores[~same])[::-1]
    threshold = impostors[max(0, int(rate * len(impostors)) - 1)]
    return float((scores[same] > threshold).mean())


def turn_photos(source: Path, target: Path) -> None:
    """Write one photo of each of PEOPLE people, upright and turned by each angle, as JPEGs named PERSON_ANGLE."""
    from PIL import Image

    people = sorted(folder for folder in source.iterdir() if folder.is_dir())
    chosen = np.random.default_rng(1).choice(len(people), min(PEOPLE, len(people)), replace=False)
    for number in chosen.tolist():
        with Image.open(sorted(people[number].glob("*.jpg"))[0]) as image:
            factor = _ENLARGED / max(image.size)
            size = round(image.width * factor), round(image.height * factor)
            large = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        for angle in (0, *ANGLES, *(-angle for angle in ANGLES)):
            turned = large.rotate(angle, expand=True, fillcolor=_GREY, resample=Image.Resampling.BICUBIC)
            turned.save(target / f"{number:05d}_{angle:+03d}.jpg", quality=92, subsampling=0)


def cosines_to_upright(paths: list[str], vectors: NDArray[np.float32]) -> dict[int, list[float]]:
    """By angle the cosines to the upright photo; 0 for a photo without a row."""
    by_name = dict(zip((Path(path).stem for path in paths), vectors, strict=True))
    zeros = np.zeros(vectors.shape[1], np.float32)
    cosines: dict[int, list[float]] = {angle: [] for angle in ANGLES}
    for name, upright in by_name.items():
        number, _, angle = name.partition("_")
        if int(angle) == 0:
            for turned in (*ANGLES, *(-each for each in ANGLES)):
                cosines[abs(turned)].append(float(upright @ by_name.get(f"{number}_{turned:+03d}", zeros)))
    return cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, help="folder of portraits, one subfolder per person")
    parser.add_argument(
        "--upright", type=Path, required=True, help="folder of upright photos, one subfolder per person"
    )
    parser.add_argument("--models", nargs="+", default=["mobilefacenet-128", "facemill-512"], help="embedding models")
    parser.add_argument("--detector", default="yunet", help="detector; default: yunet")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)

    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process
    from runtime.storage.file import EmbeddingFile

    detector = material.build(options.detector, options.data, precision="fp32")
    looks = {name: None if name == "none" else material.build(name, options.data, precision="fp32") for name in LOOKS}
    rows, notes = [], []
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        turned = folder / "turned"
        turned.mkdir()
        turn_photos(options.upright, turned)

        def embed(photos: Path, model: str, look: str) -> tuple[list[str], NDArray[np.float32], dict[str, int]]:
            output = folder / f"{photos.name}-{model}-{look}.h5"
            engine = material.build(model, options.data, precision="fp32")
            rules = FaceRules("detect", min_iod=0)
            request = Request((str(photos),), output, engine, faces=rules, detector=detector, landmarks=looks[look])
            summary = process(request)
            with EmbeddingFile(output) as file:
                return list(file.names(range(file.rows))), np.concatenate(list(file.blocks())), summary.outcomes

        for model in options.models:
            for look in LOOKS:
                paths, vectors, outcomes = embed(options.portraits, model, look)
                person = np.unique([str(Path(path).parent) for path in paths], return_inverse=True)[1]
                row = {"model": model, "landmarks": look, "rows": len(paths)}
                row[f"TAR at FAR {_FAR:g}"] = f"{true_accept_rate(vectors, person):.3f}"
                if model == options.models[0]:
                    cosines = cosines_to_upright(*embed(turned, model, look)[:2])
                    row |= {f"{angle} degrees": f"{np.median(cosines[angle]):.3f}" for angle in ANGLES}
                rows.append(row)
                notes.append(f"{model}, {look}: outcomes of the portraits: {outcomes}")
    write_results(
        f"second_look_{options.detector}",
        f"The second look, {options.detector}, FP32: portraits of known people, and turned heads",
        [{key: row.get(key, "") for key in rows[0]} for row in rows],
        [
            "TAR over all pairs of the portraits with a row",
            f"Degrees: median cosine to the row of the same photo upright, of one photo of {PEOPLE} people, turned "
            "both ways; a photo without a row counts as 0",
            *notes,
        ],
    )


if __name__ == "__main__":
    main()
