#!/usr/bin/env python3
"""LFW from its unaligned photographs: accuracy, how many photographs end with a face, and how many cut close to it do.

    python benchmarks/faces_lfw.py LFW/ --model mobilefacenet-128

LFW/ has a sub-folder a person and `pairs.txt`. The photographs go through `facemill evaluate`'s pipeline; then each is
cut to its face, so that the face's box fills 70 to 85 % of the frame, and 85 to 100 %, and goes through it again.
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


def cut(photo: NDArray[np.uint8], box: NDArray[np.float32], fill: float) -> NDArray[np.uint8]:
    """The frame around a box that the box fills to this part; less where the photograph ends."""
    height, width = photo.shape[:2]
    half = (box[2:] - box[:2]) / 2 / np.sqrt(fill)
    middle = (box[:2] + box[2:]) / 2
    left, top = np.maximum(np.round(middle - half), 0).astype(int)
    right, bottom = np.minimum(np.round(middle + half), (width, height)).astype(int)
    return photo[top:bottom, left:right]


def cut_all(embedded: Path, source: Path, target: Path, band: tuple[float, float]) -> int:
    """Cut every photograph of an embedding file to its face, into a folder of JPEGs; returns how many."""
    import cv2

    rng = np.random.default_rng(0)
    with h5py.File(embedded) as file:
        paths, boxes = file["image_paths"].asstr()[:], file["faces/box"][:]
    for number, (path, box) in enumerate(zip(paths, boxes, strict=True)):
        frame = cut(cv2.imread(str(source / path)), box, rng.uniform(*band))
        cv2.imwrite(str(target / f"{number:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="the folder of LFW, with pairs.txt")
    parser.add_argument("--model", default="mobilefacenet-128", help="default: mobilefacenet-128")
    parser.add_argument("--detector", default="yunet", help="default: yunet")
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
        whole = evaluate(request, read_pairs(options.lfw / "pairs.txt"))
        counts = whole.embedded.outcomes
        photographs = len(whole.embedded.paths)
        rows = [{"photographs": "whole", "number": photographs, "with a face, %": share(counts, photographs)}]
        for low, high in BANDS:
            place = Path(folder) / f"cut-{low:.0%}"
            place.mkdir()
            number = cut_all(output, options.lfw, place, (low, high))
            done = process(
                Request((str(place),), Path(folder) / f"{place.name}.h5", engine, faces=rules, detector=detector)
            )
            what = f"cut: the face's box fills {low:.0%} to {high:.0%}"
            rows.append({"photographs": what, "number": number, "with a face, %": share(done.outcomes, number)})
    assert whole.pairs is not None
    folds = whole.pairs.folds
    write_results(
        f"faces_lfw_{options.model}" + (f"_{options.detector}" if options.detector != "yunet" else ""),
        f"LFW from unaligned photographs: {options.detector}, {options.model}, FP32",
        rows,
        [
            f"LFW, {len(folds.right):,} pairs, 10-fold: accuracy {100 * folds.accuracy:.2f} % (standard error "
            f"{100 * folds.standard_error:.2f})",
            f"Outcomes of the whole photographs: {counts}",
            "The boxes are those that were found in the whole photographs; one over the edge of its photograph gives a "
            "smaller frame, which it fills no less",
        ],
    )


def share(outcomes: dict[str, int], number: int) -> str:
    """Percent embedded, with the digits that tell one photograph."""
    return f"{100 * outcomes.get('embedded', 0) / number:.3f}"


if __name__ == "__main__":
    main()
