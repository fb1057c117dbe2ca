#!/usr/bin/env python3
"""Measure LFW from its unaligned photos: accuracy, and in how many photos, whole or cropped close, a face is found.

    python benchmarks/faces_lfw.py LFW/ --model mobilefacenet-128

LFW/ has one subfolder per person, and `pairs.txt`. The photos go through the pipeline of `facemill evaluate`. Each is
then cropped so that the face's box fills 70 to 85 %, and 85 to 100 %, of the frame, and processed again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import material
import numpy as np
from numpy.typing import NDArray
from report import write_results

BANDS = ((0.70, 0.85), (0.85, 1.0))


def crop_to_face(photo: NDArray[np.uint8], box: NDArray[np.float32], fill: float) -> NDArray[np.uint8]:
    """Crop a photo so that the box fills this share of the frame; the frame ends where the photo does."""
    height, width = photo.shape[:2]
    half = (box[2:] - box[:2]) / 2 / np.sqrt(fill)
    middle = (box[:2] + box[2:]) / 2
    x, y = np.maximum(np.round(middle - half), 0).astype(int)
    right, bottom = np.minimum(np.round(middle + half), (width, height)).astype(int)
    return photo[y:bottom, x:right]


def crop_all(embedded: Path, source: Path, target: Path, band: tuple[float, float]) -> int:
    """Crop every photo of an embedding file to its face, save them as JPEGs, and return how many."""
    import cv2

    rng = np.random.default_rng(0)
    with h5py.File(embedded) as file:
        paths, boxes = file["image_paths"].asstr()[:], file["faces/box"][:]
    for number, (path, box) in enumerate(zip(paths, boxes, strict=True)):
        frame = crop_to_face(cv2.imread(str(source / path)), box, rng.uniform(*band))
        cv2.imwrite(str(target / f"{number:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="folder of LFW, with pairs.txt")
    parser.add_argument("--model", default="mobilefacenet-128", help="embedding model; default: mobilefacenet-128")
    parser.add_argument("--detector", default="yunet", help="detector; default: yunet")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)

    from runtime.evaluation.evaluate import evaluate
    from runtime.faces.rules import FaceRules
    from runtime.metrics.pairs import read_pairs
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    engine = material.build(options.model, options.data, precision="fp32")
    detector = material.build(options.detector, options.data, precision="fp32")
    rules = FaceRules("detect", min_iod=0)
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        output = Path(folder) / "lfw.h5"
        request = Request((str(options.lfw),), output, engine, faces=rules, detector=detector)
        evaluation = evaluate(request, read_pairs(options.lfw / "pairs.txt"))
        counts = evaluation.embedded.outcomes
        photo_count = len(evaluation.embedded.paths)
        rows = [
            {"photographs": "whole", "number": photo_count, "with a face, %": percent_embedded(counts, photo_count)}
        ]
        for low, high in BANDS:
            target = Path(folder) / f"cut-{low:.0%}"
            target.mkdir()
            number = crop_all(output, options.lfw, target, (low, high))
            result = process(
                Request((str(target),), Path(folder) / f"{target.name}.h5", engine, faces=rules, detector=detector)
            )
            label = f"cut: the face's box fills {low:.0%} to {high:.0%}"
            rows.append(
                {"photographs": label, "number": number, "with a face, %": percent_embedded(result.outcomes, number)}
            )
    assert evaluation.pairs is not None
    folds = evaluation.pairs.folds
    write_results(
        f"faces_lfw_{options.model}" + (f"_{options.detector}" if options.detector != "yunet" else ""),
        f"LFW from unaligned photos: {options.detector}, {options.model}, FP32",
        rows,
        [
            f"LFW, {len(folds.right):,} pairs, 10-fold: accuracy {100 * folds.accuracy:.2f} % (standard error "
            f"{100 * folds.standard_error:.2f})",
            f"Outcomes of the whole photos: {counts}",
            "The boxes were detected in the whole photos. A box that crosses the edge of its photo gives a smaller "
            "frame, and still fills it",
        ],
    )


def percent_embedded(outcomes: dict[str, int], number: int) -> str:
    """Percentage embedded, precise enough to show a single photo."""
    return f"{100 * outcomes.get('embedded', 0) / number:.3f}"


if __name__ == "__main__":
    main()
