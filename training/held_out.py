#!/usr/bin/env python3
"""Write the crops that measure ages and genders into a folder: python -m training.held_out /data held-out/

The folder gets the crops that no step of training.train_attributes learns from, and labels.csv, for facemill evaluate
held-out/ --attributes held-out/labels.csv.
"""

from __future__ import annotations

import argparse
import csv
import tarfile
from pathlib import Path

import numpy as np

from .attribute_labels import GENDERS, read_labels
from .command import command

TARS = ("face_crops.tar", "face_crops_b.tar")
LABELS = "face_crops_labels.csv"


def write_held_out(data: Path, folder: Path) -> int:
    """Write the crops and their labels; returns their number.

    Args:
        data: folder with the tars and the labels.
        folder: new folder.
    Raises:
        ValueError: a file is missing or damaged.
        FileExistsError: the folder exists.
    """
    folder.mkdir(parents=True)
    rows = []
    for tar in TARS:
        with tarfile.open(data / tar) as archive:
            members = [member for member in archive if member.isfile() and member.name.endswith(".jpg")]
            names = [Path(member.name).name for member in members]
            labels = read_labels(data / LABELS, names)
            for i in np.flatnonzero(labels.held_out).tolist():
                file = archive.extractfile(members[i])
                assert file is not None
                (folder / names[i]).write_bytes(file.read())
                rows.append((names[i], f"{labels.ages[i]:g}", GENDERS[int(labels.women[i])]))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "age", "gender"), *rows])
    return len(rows)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the tars and the labels")
    parser.add_argument("folder", type=Path, help="folder to write")
    options = parser.parse_args()
    print(f"{write_held_out(options.data, options.folder):,} crops and labels.csv in {options.folder}")


if __name__ == "__main__":
    main()
