#!/usr/bin/env python3
"""Compare a detector with a reference: faces found, distance between landmarks, speed of the network.

    python benchmarks/detector_agreement.py LFW/ --detector facemill-det --reference yunet

Landmark distances are divided by the reference's distance between the eyes, over faces that both detectors found. Both
detect as `facemill process` does, each with an FP32 engine on the CPU.
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

BATCH = 64  # photos
SIDE = 160  # pixels, the first view
OTHER_SIDE = 192  # pixels; shows how steady the reference is
ROUNDS = 25
ROTATED_EVERY = 8  # photos
MAX_ANGLE_UPRIGHT = 25.0  # degrees
MIN_IOU_SAME_FACE = 0.3


def detect_faces(runner: Runner, photos: list[NDArray[np.uint8]], side: int = SIDE) -> list[Faces]:
    """Detect the faces of every photo; `side` is the first view's long side in pixels."""
    rules = replace(FaceRules("detect").find, views=(View(side),))
    finder = Finder(runner.infer, decoder_of(runner.info.decode), rules, BATCH)
    return [faces for i in range(0, len(photos), BATCH) for faces in finder.find(photos[i : i + BATCH])]


def time_inference(runner: Runner, images: NDArray[np.uint8]) -> float:
    """Time the network alone on one batch, in seconds."""
    start = time.perf_counter()
    runner.infer(images)
    return time.perf_counter() - start


def compare_landmarks(
    photos: list[NDArray[np.uint8]], reference: list[Faces], candidate: list[Faces]
) -> tuple[NDArray[np.float64], list[float], int]:
    """Compare the landmarks of the main faces that the reference finds.

    Returns:
        (n, 5) distances between the two detectors' landmarks, divided by the distance between the eyes; the
        intersection over union of the boxes; and how many faces the other detector missed or put elsewhere.
    """
    gaps, shares, elsewhere = [], [], 0
    for photo, expected, faces in zip(photos, reference, candidate, strict=True):
        if not len(expected):
            continue
        i = main_face(expected, *photo.shape[:2])
        shared = iou(expected.boxes[i], faces.boxes)
        k = int(shared.argmax()) if len(shared) else -1
        if k < 0 or shared[k] < MIN_IOU_SAME_FACE:
            elsewhere += 1
            continue
        eyes = np.linalg.norm(expected.landmarks[i, 0] - expected.landmarks[i, 1])
        gaps.append(np.linalg.norm(expected.landmarks[i] - faces.landmarks[k], axis=1) / eyes)
        shares.append(float(shared[k]))
    return np.array(gaps, np.float64), shares, elsewhere


def share_upright(runner: Runner, photos: list[NDArray[np.uint8]], upright: list[Faces]) -> list[float]:
    """Share of photos whose face is found the right way up after a turn by 90, 180 and 270 degrees."""
    shares = []
    for turns in (1, 2, 3):
        rotated = [np.rot90(photo, turns) for photo in photos]
        count = 0
        for photo, before, after in zip(rotated, upright, detect_faces(runner, rotated), strict=True):
            if len(before) and len(after):
                angle = _eye_angle(before, main_face(before, *np.rot90(photo, -turns).shape[:2]))
                gap = _eye_angle(after, main_face(after, *photo.shape[:2])) - angle + 90 * turns
                count += abs((gap + 180) % 360 - 180) < MAX_ANGLE_UPRIGHT
        shares.append(count / len(photos))
    return shares


def _eye_angle(faces: Faces, index: int) -> float:
    """Angle of the line from the left eye to the right one, in degrees."""
    x, y = faces.landmarks[index, 1] - faces.landmarks[index, 0]
    return float(np.degrees(np.arctan2(y, x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos, searched with its subfolders")
    parser.add_argument("--detector", default="facemill-det", help="detector to judge; default: facemill-det")
    parser.add_argument("--reference", default="yunet", help="detector to compare with; default: yunet")
    parser.add_argument("--every", type=int, default=1, help="use only every n-th photo; default: 1")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    names = [options.reference, options.detector]
    engines = [material.build(name, options.data, precision="fp32") for name in names]
    photos = [cv2.imread(str(path)) for path in sorted(options.photos.rglob("*.jpg"))[:: options.every]]
    images = np.stack([cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for photo in photos[:BATCH]])
    with open_runner(engines[0], threads=1) as reference, open_runner(engines[1], threads=1) as detector:
        runners = [reference, detector]
        times = [[time_inference(runner, images) for runner in runners] for _ in range(ROUNDS + 1)][1:]
        detected = [detect_faces(runner, photos) for runner in runners]
        detected_again = detect_faces(reference, photos, OTHER_SIDE)
        sample = slice(None, None, ROTATED_EVERY)
        upright = [
            share_upright(runner, photos[sample], faces[sample])
            for runner, faces in zip(runners, detected, strict=True)
        ]
    distances, shares, elsewhere = compare_landmarks(photos, detected[0], detected[1])
    shifts, _, _ = compare_landmarks(photos, detected[0], detected_again)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(a / b for a, b in times)
    rows = [
        {
            "detector": name,
            "photographs with a face, %": f"{100 * np.mean([len(faces_of_photo) > 0 for faces_of_photo in faces]):.3f}",
            "score, 0.1 % of the best faces are below": f"{_low_score(faces):.2f}",
            "turned by 90, 180, 270 degrees: seen the right way up, %": ", ".join(
                f"{100 * x:.1f}" for x in shares_upright
            ),
            "faces a photograph": f"{np.mean([len(faces_of_photo) for faces_of_photo in faces]):.3f}",
            f"network, ms a picture of {SIDE}x{SIDE}": f"{1000 * time_ / len(images):.3f}",
        }
        for name, faces, time_, shares_upright in zip(names, detected, medians, upright, strict=True)
    ]
    points = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
    each = ", ".join(f"{point} {100 * gap:.2f}" for point, gap in zip(points, distances.mean(axis=0), strict=True))
    write_results(
        f"detector_agreement_{Path(options.detector).stem}",
        f"{options.detector} compared with {options.reference} on {len(photos):,} photos",
        rows,
        [
            f"Landmarks differ by {100 * distances.mean():.2f} % of the distance between the eyes on average, median "
            f"{100 * np.median(distances.mean(axis=1)):.2f}, 95th percentile "
            f"{100 * np.quantile(distances.mean(axis=1), 0.95):.2f} ({each}); {len(distances):,} faces, boxes' mean "
            f"intersection over union {np.mean(shares):.3f}; a different face, or none, in {elsewhere} photos",
            f"{options.reference} itself, with a view of {OTHER_SIDE} pixels instead of {SIDE}, moves them by "
            f"{100 * shifts.mean():.2f} % on average",
            f"{options.detector} is {ratio:.2f} times as fast as {options.reference} (median of {ROUNDS} rounds, "
            f"alternating, {len(images)} images in a batch, one thread)",
        ],
    )


def _low_score(detected: list[Faces]) -> float:
    return float(np.quantile([faces_of_photo.scores[0] for faces_of_photo in detected if len(faces_of_photo)], 0.001))


if __name__ == "__main__":
    main()
