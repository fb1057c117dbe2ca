#!/usr/bin/env python3
"""Compare detectors on LFW's unaligned photos: speed, faces found, recognition accuracy with each, licence.

    python benchmarks/detectors_lfw.py LFW/ --detectors facemill-det,yunet,scrfd-500m,scrfd-2.5g

LFW/ has one subfolder per person, and `pairs.txt`. `facemill evaluate --detectors` measures and recommends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from material import ROOT
from report import write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="folder of LFW, with pairs.txt")
    parser.add_argument("--model", default="mobilefacenet-128", help="embedding model; default: mobilefacenet-128")
    parser.add_argument(
        "--detectors",
        default="facemill-det,yunet,scrfd-500m,scrfd-2.5g",
        help="detectors, separated by commas; default: facemill-det,yunet,scrfd-500m,scrfd-2.5g",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lfw, choices = str(options.lfw.absolute()), ["--detectors", options.detectors, "--model", options.model]
        command = [
            sys.executable,
            str(ROOT / "evaluate.py"),
            lfw,
            "--pairs",
            f"{lfw}/pairs.txt",
            *choices,
            "-o",
            folder,
        ]
        subprocess.run(command, check=True)
        report = json.loads((Path(folder) / "report.json").read_text())
    write_results(
        f"detectors_lfw_{options.model}",
        f"Detectors on LFW from unaligned photos, {options.model}",
        [
            {
                "detector": row["label"],
                "licence": row["licence"],
                "with a face, %": f"{100 * row['found']['value']:.3f}",
                "accuracy behind it, %": f"{100 * row['merit']['value']:.2f}",
                "no face": row["no_face"],
                "images/s": row["images_per_s"],
                "detection alone, images/s": row["detect_images_per_s"],
            }
            for row in report["detectors"]
        ],
        [report["recommendation"], "One run of each, in sequence: the speeds show large differences only"],
    )


if __name__ == "__main__":
    main()
