#!/usr/bin/env python3
"""Draw the crops that the second look changes most, before and after it, as one picture to look at.

    python benchmarks/crop_sheet.py PORTRAITS/ -o /tmp/worst.png

The pairs (`--landmarks none` left, the default right) are those whose landmarks move farthest, in distances between the
eyes. The picture shows photos of people: it goes to a place of yours, never into the project.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import material
import numpy as np

SHOWN, COLUMNS, SIDE = 50, 5, 112


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write, .png")
    parser.add_argument("--detector", default="facemill-det", help="detector; default: facemill-det")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)

    import cv2

    from runtime.engines.backends import open_runner
    from runtime.faces.align import align_crops
    from runtime.faces.detectors import largest_face
    from runtime.faces.quality import fit, interocular
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.face_work import open_finder, open_second_look

    detector, network = (
        material.build(name, options.data, precision="fp32") for name in (options.detector, "facemill-landmarks")
    )
    pairs = []
    with open_runner(detector, threads=1) as first, open_runner(network, threads=1) as second:
        look = open_second_look(second, "bgr")
        finder = open_finder(first, FaceRules("detect"), "bgr", look)
        for path in sorted(options.photos.rglob("*.jpg")):
            photo = cv2.imread(str(path))
            (faces,) = finder.look_closer([photo], finder.find([photo]))
            if not len(faces):
                continue
            before = faces.take([largest_face(faces, *photo.shape[:2])])
            (after,), (doubt,) = look.improve([photo], [before]), look.doubts([photo], [before])
            eyes = float(interocular(after.landmarks)[0])
            moved = float(np.linalg.norm(after.landmarks - before.landmarks, axis=2).mean()) / max(eyes, 1e-6)
            crops = [align_crops([photo], each.landmarks, size=SIDE)[0] for each in (before, after)]
            label = f"{moved:.2f} {fit(before.landmarks)[0]:.2f} {fit(after.landmarks)[0]:.2f} {doubt[0]:.2f}"
            pairs.append((moved, path, label, np.hstack(crops)))
    pairs.sort(key=lambda pair: -pair[0])
    cells = []
    for _, path, label, crops in pairs[:SHOWN]:
        cell = np.full((SIDE + 18, 2 * SIDE + 8, 3), 255, np.uint8)
        cell[:SIDE, : 2 * SIDE] = crops
        cv2.putText(cell, label, (2, SIDE + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(cell)
        print(f"{len(cells):2d} moved, fit before, fit after, doubt: {label}  {path}")
    while len(cells) % COLUMNS:
        cells.append(np.full_like(cells[0], 255))
    lines = [np.hstack(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    if not cv2.imwrite(str(options.output), np.vstack(lines)):
        raise SystemExit(f"{options.output} cannot be written")


if __name__ == "__main__":
    main()
