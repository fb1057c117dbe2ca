#!/usr/bin/env python3
"""LFW's pairs as aligned crops, for verification: python -m training.lfw lfw_pairs.tar yunet.onnx lfw.npz"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.faces.align import TEMPLATE_SIZE, similarity

from .command import command, want_file, want_folder

ENLARGE = 1.5
_FOLD = 600  # pairs
_LAYOUT = "lfw/<name>/<name>_NNNN.jpg and lfw/pairs.txt"


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
    points = best[4:14].reshape(1, 5, 2)  # right eye of the person first: left in the picture
    warped = cv2.warpAffine(large, similarity(points)[0], (TEMPLATE_SIZE, TEMPLATE_SIZE), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(warped[..., ::-1])


def read_photographs(tar: Path, detector: cv2.FaceDetectorYN) -> tuple[dict[str, NDArray[np.uint8]], list[str]]:
    """The crop of each photograph by its name, and the lines of pairs.txt.

    Raises:
        ValueError: the tar is of another layout, or a photograph shows no face.
    """
    if not tarfile.is_tarfile(tar):
        raise ValueError(f"{tar} is no tar; wanted: one with {_LAYOUT}")
    crops: dict[str, NDArray[np.uint8]] = {}
    lines: list[str] = []
    with tarfile.open(tar) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            if Path(member.name).name == "pairs.txt":
                lines = file.read().decode().splitlines()
            elif member.name.endswith(".jpg"):
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
                if image is None:
                    raise ValueError(f"{member.name} in {tar} is no photograph; wanted: {_LAYOUT}")
                try:
                    crops[Path(member.name).stem] = crop(image, detector)
                except ValueError as err:
                    raise ValueError(f"{member.name} in {tar}: {err}; wanted: a photograph with a face") from err
    if not lines or not crops:
        raise ValueError(f"{tar} has {len(crops)} photographs and {len(lines)} lines of pairs; wanted: {_LAYOUT}")
    return crops, lines


def read_pairs(lines: list[str], rows: dict[str, int]) -> tuple[list[int], list[int], list[bool]]:
    """Rows of the left and of the right crops, and whether they show one person.

    Args:
        lines: of pairs.txt: name, number, number; or name, number, name, number; tabs between. Others are passed over.
        rows: of each `<name>_NNNN`.
    Raises:
        ValueError: a photograph is not there.
    """
    left, right, same = [], [], []
    for line in lines:
        part = line.split("\t")
        if len(part) not in (3, 4):
            continue
        try:
            left.append(rows[f"{part[0]}_{int(part[1]):04d}"])
            right.append(rows[f"{part[-2 if len(part) == 4 else 0]}_{int(part[-1]):04d}"])
        except (KeyError, ValueError) as err:
            raise ValueError(f"pairs.txt names {line!r}, of which a photograph is missing; wanted: {_LAYOUT}") from err
        same.append(len(part) == 3)
    return left, right, same


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tar", type=Path, help=f"{_LAYOUT}, tabs between")
    parser.add_argument("yunet", type=Path, help="the detector's ONNX file: facemill models fetch yunet")
    parser.add_argument("target", type=Path, help="the .npz to write")
    chosen = parser.parse_args()
    want_file(chosen.tar, "the tar", f"one with {_LAYOUT}")
    want_file(chosen.yunet, "the detector", "YuNet's ONNX file, as facemill models fetch yunet prints it")
    want_folder(chosen.target)
    try:
        detector = cv2.FaceDetectorYN.create(str(chosen.yunet), "", (320, 320), 0.6, 0.3, 50)
    except cv2.error as err:
        raise ValueError(f"{chosen.yunet} cannot be read; wanted: YuNet's ONNX file") from err
    crops, lines = read_photographs(chosen.tar, detector)
    left, right, same = read_pairs(lines, {name: row for row, name in enumerate(crops)})
    fold = np.arange(len(left)) // _FOLD
    np.savez(
        chosen.target, crops=np.stack(list(crops.values())), left=left, right=right, same=np.array(same), fold=fold
    )
    print(f"{len(crops)} crops, {len(left)} pairs in {chosen.target}")


if __name__ == "__main__":
    main()
