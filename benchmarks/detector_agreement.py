#!/usr/bin/env python3
"""A detector beside another: faces found, how far apart the landmarks are, how fast the network answers.

    python benchmarks/detector_agreement.py LFW/ --detector facemill-det --reference yunet

Distances are in parts of the distance between the eyes as the reference sees them, over faces that both saw. Both look
as `facemill process` looks, each with an FP32 engine on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import material
import numpy as np
from numpy.typing import NDArray
from report import write_results

from runtime.engines.backends import open_runner
from runtime.engines.runner import Runner
from runtime.faces.detectors import Faces, decoder_of, iou, main_face
from runtime.faces.finder import Finder, View
from runtime.faces.rules import FaceRules

AT_ONCE = 64
SIDE = 160  # of the picture that is looked at first
OTHER_SIDE = 192  # for how steady the reference is
ROUNDS = 25
TURNED_EVERY = 8  # photographs
RIGHT_WAY = 25.0  # degrees
SAME_FACE = 0.3  # intersection over union


def looked_at(runner: Runner, photos: list[NDArray[np.uint8]], side: int = SIDE) -> list[Faces]:
    """The faces of every photograph, looked at first in a view so long."""
    rules = replace(FaceRules("detect").find, views=(View(side),))
    finder = Finder(runner.infer, decoder_of(runner.info.decode), rules, AT_ONCE)
    return [faces for i in range(0, len(photos), AT_ONCE) for faces in finder.find(photos[i : i + AT_ONCE])]


def seconds(runner: Runner, pictures: NDArray[np.uint8]) -> float:
    """Of the network alone on a batch, one thread."""
    start = time.perf_counter()
    runner.infer(pictures)
    return time.perf_counter() - start


def compared(
    photos: list[NDArray[np.uint8]], reference: list[Faces], others: list[Faces]
) -> tuple[NDArray[np.float64], list[float], int]:
    """Of the photographs' main faces by the reference: (n, 5) how far the landmarks of the other are from its own, in
    distances between the eyes; how much the boxes share; and how many faces the other saw elsewhere, if at all."""
    gaps, shares, elsewhere = [], [], 0
    for photo, one, two in zip(photos, reference, others, strict=True):
        if not len(one):
            continue
        i = main_face(one, *photo.shape[:2])
        shared = iou(one.boxes[i], two.boxes)
        k = int(shared.argmax()) if len(shared) else -1
        if k < 0 or shared[k] < SAME_FACE:
            elsewhere += 1
            continue
        eyes = np.linalg.norm(one.landmarks[i, 0] - one.landmarks[i, 1])
        gaps.append(np.linalg.norm(one.landmarks[i] - two.landmarks[k], axis=1) / eyes)
        shares.append(float(shared[k]))
    return np.array(gaps, np.float64), shares, elsewhere


def righted(runner: Runner, photos: list[NDArray[np.uint8]], upright: list[Faces]) -> list[float]:
    """Of photographs turned by 90, 180 and 270 degrees the share whose face is seen the right way up."""
    shares = []
    for turns in (1, 2, 3):
        turned = [np.rot90(photo, turns) for photo in photos]
        right = 0
        for photo, one, other in zip(turned, upright, looked_at(runner, turned), strict=True):
            if len(one) and len(other):
                before = _direction(one, main_face(one, *np.rot90(photo, -turns).shape[:2]))
                gap = _direction(other, main_face(other, *photo.shape[:2])) - before + 90 * turns
                right += abs((gap + 180) % 360 - 180) < RIGHT_WAY
        shares.append(right / len(photos))
    return shares


def _direction(faces: Faces, which: int) -> float:
    """Of the line from the left eye to the right one, degrees."""
    x, y = faces.landmarks[which, 1] - faces.landmarks[which, 0]
    return float(np.degrees(np.arctan2(y, x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photographs, with sub-folders")
    parser.add_argument("--detector", default="facemill-det", help="default: facemill-det")
    parser.add_argument("--reference", default="yunet", help="default: yunet")
    parser.add_argument("--every", type=int, default=1, help="take each n-th photograph alone")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    names = [options.reference, options.detector]
    engines = [material.build(name, options.data, precision="fp32") for name in names]
    photos = [cv2.imread(str(path)) for path in sorted(options.photos.rglob("*.jpg"))[:: options.every]]
    pictures = np.stack([cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for photo in photos[:AT_ONCE]])
    with open_runner(engines[0], threads=1) as reference, open_runner(engines[1], threads=1) as other:
        runners = [reference, other]
        times = [[seconds(runner, pictures) for runner in runners] for _ in range(ROUNDS + 1)][1:]
        seen = [looked_at(runner, photos) for runner in runners]
        again = looked_at(reference, photos, OTHER_SIDE)
        some = slice(None, None, TURNED_EVERY)
        turned = [righted(runner, photos[some], faces[some]) for runner, faces in zip(runners, seen, strict=True)]
    distances, shares, elsewhere = compared(photos, seen[0], seen[1])
    of_itself, _, _ = compared(photos, seen[0], again)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(a / b for a, b in times)
    rows = [
        {
            "detector": name,
            "photographs with a face, %": f"{100 * np.mean([len(one) > 0 for one in faces]):.3f}",
            "score, 0.1 % of the best faces are below": f"{_low(faces):.2f}",
            "turned by 90, 180, 270 degrees: seen the right way up, %": ", ".join(f"{100 * x:.1f}" for x in righted_),
            "faces a photograph": f"{np.mean([len(one) for one in faces]):.3f}",
            f"network, ms a picture of {SIDE}x{SIDE}": f"{1000 * time_ / len(pictures):.3f}",
        }
        for name, faces, time_, righted_ in zip(names, seen, medians, turned, strict=True)
    ]
    points = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
    each = ", ".join(f"{point} {100 * gap:.2f}" for point, gap in zip(points, distances.mean(axis=0), strict=True))
    write_results(
        f"detector_agreement_{Path(options.detector).stem}",
        f"{options.detector} beside {options.reference} on {len(photos):,} photographs",
        rows,
        [
            f"Landmarks: {100 * distances.mean():.2f} % of the distance between the eyes apart on average, median "
            f"{100 * np.median(distances.mean(axis=1)):.2f}, 95 % of the faces below "
            f"{100 * np.quantile(distances.mean(axis=1), 0.95):.2f} ({each}); {len(distances):,} faces, boxes' mean "
            f"intersection over union {np.mean(shares):.3f}; another face, or none, in {elsewhere} photographs",
            f"{options.reference} itself, looking at a view of {OTHER_SIDE} pixels instead of {SIDE}, puts them "
            f"{100 * of_itself.mean():.2f} % away on average",
            f"{options.detector} answers {ratio:.2f} times as fast as {options.reference} (median of {ROUNDS} rounds, "
            f"one after the other, {len(pictures)} pictures in a batch, one thread)",
        ],
    )


def _low(seen: list[Faces]) -> float:
    return float(np.quantile([one.scores[0] for one in seen if len(one)], 0.001))


if __name__ == "__main__":
    main()
