#!/usr/bin/env python3
"""The detectors beside each other on LFW's unaligned photographs: speed, faces found, accuracy behind each, licence.

    python benchmarks/detectors_lfw.py LFW/ --detectors facemill-det,yunet,scrfd-500m,scrfd-2.5g

LFW/ has a sub-folder a person and `pairs.txt`. It is `facemill evaluate --detectors` that measures and recommends.
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
    parser.add_argument("lfw", type=Path, help="the folder of LFW, with pairs.txt")
    parser.add_argument("--model", default="mobilefacenet-128", help="default: mobilefacenet-128")
    parser.add_argument("--detectors", default="facemill-det,yunet,scrfd-500m,scrfd-2.5g")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lfw, what = str(options.lfw.absolute()), ["--detectors", options.detectors, "--model", options.model]
        command = [sys.executable, str(ROOT / "evaluate.py"), lfw, "--pairs", f"{lfw}/pairs.txt", *what, "-o", folder]
        subprocess.run(command, check=True)
        report = json.loads((Path(folder) / "report.json").read_text())
    write_results(
        f"detectors_lfw_{options.model}",
        f"Detectors on LFW from unaligned photographs, {options.model}",
        [
            {
                "detector": one["label"],
                "licence": one["licence"],
                "with a face, %": f"{100 * one['found']['value']:.3f}",
                "accuracy behind it, %": f"{100 * one['merit']['value']:.2f}",
                "no face": one["no_face"],
                "images/s": one["images_per_s"],
                "detection alone, images/s": one["detect_images_per_s"],
            }
            for one in report["detectors"]
        ],
        [report["recommendation"], "One run of each, after another: the speeds tell apart what differs by much"],
    )


if __name__ == "__main__":
    main()
