#!/usr/bin/env python3
"""LFW's pairs as aligned crops, for verification: python -m training.lfw lfw_pairs.tar yunet.onnx lfw.npz"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# ArcFace's template for 112x112 (arXiv:1801.07698): eyes, nose, mouth corners, left first as seen in the picture.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
ENLARGE = 1.5


def similarity(points: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) least-squares similarity from points to template.

    Source: Umeyama 1991, Least-squares estimation of transformation parameters.
    """
    mean_p, mean_t = points.mean(0), template.mean(0)
    p, t = points - mean_p, template - mean_t
    u, s, vt = np.linalg.svd(t.T @ p)
    d = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * d) @ vt
    scale = (s * d).sum() / (p**2).sum()
    return np.hstack([scale * rotation, (mean_t - scale * rotation @ mean_p)[:, None]])


def crop(image: NDArray[np.uint8], detector: cv2.FaceDetectorYN) -> NDArray[np.uint8]:
    """The face nearest to the middle, weighted by its area, aligned: (112, 112, 3) RGB."""
    large = cv2.resize(image, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_LINEAR)
    height, width = large.shape[:2]
    detector.setInputSize((width, height))
    _, faces = detector.detect(large)
    if faces is None:
        raise ValueError("no face")
    centres = faces[:, :2] + faces[:, 2:4] / 2
    distance = np.linalg.norm(centres - [width / 2, height / 2], axis=1)
    best = faces[int(np.argmin(distance / np.sqrt(faces[:, 2] * faces[:, 3])))]
    points = best[4:14].reshape(5, 2).astype(np.float64)  # right eye of the person first: left in the picture
    warped = cv2.warpAffine(large, similarity(points, TEMPLATE), (112, 112), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(warped[..., ::-1])


def main() -> None:
    tar, yunet, target = map(Path, sys.argv[1:4])
    detector = cv2.FaceDetectorYN.create(str(yunet), "", (320, 320), 0.6, 0.3, 50)
    crops: dict[str, NDArray[np.uint8]] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            if member.name.endswith("pairs.txt"):
                lines = file.read().decode().splitlines()
            elif member.name.endswith(".jpg"):
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
                crops[Path(member.name).stem] = crop(image, detector)
    names = {name: row for row, name in enumerate(crops)}
    left, right, same = [], [], []
    for line in lines:
        part = line.split("\t")
        if len(part) == 3:
            a, b = (part[0], part[1]), (part[0], part[2])
        elif len(part) == 4:
            a, b = (part[0], part[1]), (part[2], part[3])
        else:
            continue
        left.append(names[f"{a[0]}_{int(a[1]):04d}"])
        right.append(names[f"{b[0]}_{int(b[1]):04d}"])
        same.append(len(part) == 3)
    fold = np.arange(len(left)) // 600
    np.savez(target, crops=np.stack(list(crops.values())), left=left, right=right, same=np.array(same), fold=fold)
    print(f"{len(crops)} crops, {len(left)} pairs in {target}")


if __name__ == "__main__":
    main()
