#!/usr/bin/env python3
"""Align LFW's pairs for verification: python -m training.lfw lfw_pairs.tar yunet.onnx lfw.npz"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.faces.align import align_crops
from runtime.faces.second_look import SecondLook

from .command import command, require_file, require_folder
from .realign import given_faces, second_look

ENLARGE = 1.5
_PAIRS_PER_FOLD = 600  # pairs
_LAYOUT = "lfw/<name>/<name>_NNNN.jpg and lfw/pairs.txt"


def align_face(image: NDArray[np.uint8], detector: cv2.FaceDetectorYN, look: SecondLook) -> NDArray[np.uint8]:
    """Align the face nearest to the middle, weighted by its area: (112, 112, 3) RGB.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: the first look.
        look: the second, of RGB.
    Raises:
        ValueError: there is no face.
    """
    large = cv2.resize(image, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_LINEAR)
    height, width = large.shape[:2]
    detector.setInputSize((width, height))
    _, faces = detector.detect(large)
    if faces is None:
        raise ValueError("no face")
    centres = faces[:, :2] + faces[:, 2:4] / 2
    distance = np.linalg.norm(centres - [width / 2, height / 2], axis=1)
    best = faces[int(np.argmin(distance / np.sqrt(faces[:, 2] * faces[:, 3])))]
    photo = np.ascontiguousarray(large[..., ::-1])
    points = best[4:14].reshape(1, 5, 2)  # the person's right eye first, which is left in the image
    return align_crops([photo], look.improve([photo], [given_faces(points)])[0].landmarks)[0]


def read_photos(
    tar: Path, detector: cv2.FaceDetectorYN, look: SecondLook
) -> tuple[dict[str, NDArray[np.uint8]], list[str]]:
    """Read the crop of each photo by its name, and the lines of pairs.txt.

    Raises:
        ValueError: the tar has another layout, or a photo shows no face.
    """
    if not tarfile.is_tarfile(tar):
        raise ValueError(f"{tar} is not a tar; expected: a tar with {_LAYOUT}")
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
                    raise ValueError(f"{member.name} in {tar} cannot be read as a photo; expected: {_LAYOUT}")
                try:
                    crops[Path(member.name).stem] = align_face(image, detector, look)
                except ValueError as err:
                    raise ValueError(f"{member.name} in {tar}: {err}; expected: a photo with a face") from err
    if not lines or not crops:
        raise ValueError(f"{tar} has {len(crops)} photos and {len(lines)} lines of pairs; expected: {_LAYOUT}")
    return crops, lines


def read_pairs(lines: list[str], rows: dict[str, int]) -> tuple[list[int], list[int], list[bool]]:
    """Read the rows of the left and right crops of each pair, and whether they show one person.

    Args:
        lines: lines of pairs.txt: name, number, number; or name, number, name, number; separated by tabs. Other lines
            are skipped.
        rows: row of each `<name>_NNNN`.
    Raises:
        ValueError: a photo of a pair is missing.
    """
    left_rows, right_rows, same = [], [], []
    for line in lines:
        fields = line.split("\t")
        if len(fields) not in (3, 4):
            continue
        try:
            left_rows.append(rows[f"{fields[0]}_{int(fields[1]):04d}"])
            right_rows.append(rows[f"{fields[-2 if len(fields) == 4 else 0]}_{int(fields[-1]):04d}"])
        except (KeyError, ValueError) as err:
            raise ValueError(f"a photo of the pair {line!r} in pairs.txt is missing; expected: {_LAYOUT}") from err
        same.append(len(fields) == 3)
    return left_rows, right_rows, same


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tar", type=Path, help=f"tar with {_LAYOUT}, separated by tabs")
    parser.add_argument("yunet", type=Path, help="YuNet's ONNX file, from: facemill models fetch yunet")
    parser.add_argument("target", type=Path, help=".npz file to write")
    parser.add_argument(
        "--landmarks",
        type=Path,
        default=Path("models/facemill-landmarks.toml"),
        help="model file of the landmark network. [default: models/facemill-landmarks.toml]",
    )
    options = parser.parse_args()
    require_file(options.tar, "the tar", f"a tar with {_LAYOUT}")
    require_file(options.yunet, "the detector", "YuNet's ONNX file, from: facemill models fetch yunet")
    require_folder(options.target)
    try:
        detector = cv2.FaceDetectorYN.create(str(options.yunet), "", (320, 320), 0.6, 0.3, 50)
    except cv2.error as err:
        raise ValueError(f"{options.yunet} cannot be read; expected: YuNet's ONNX file") from err
    crops, lines = read_photos(options.tar, detector, second_look(options.landmarks))
    left_rows, right_rows, same = read_pairs(lines, {name: row for row, name in enumerate(crops)})
    fold = np.arange(len(left_rows)) // _PAIRS_PER_FOLD
    np.savez(
        options.target,
        crops=np.stack(list(crops.values())),
        left=left_rows,
        right=right_rows,
        same=np.array(same),
        fold=fold,
    )
    print(f"{len(crops)} crops, {len(left_rows)} pairs in {options.target}")


if __name__ == "__main__":
    main()
