#!/usr/bin/env python3
"""Count the faces that detectors see in pictures without one, with and without the second look.

    python benchmarks/false_faces.py --detectors facemill-det yunet

The pictures are drawn from a seed, and taken from packages and icons of this machine
(tests/support/face_free_pictures.py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import material
from report import write_results

from tests.support.face_free_pictures import drawn_pictures, installed_pictures, pictures_with_rows

LOOKS = ("none", "facemill-landmarks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["facemill-det", "yunet"])
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    rows, notes = [], []
    for kind, pictures in (("drawn", drawn_pictures()), ("of packages and icons", installed_pictures())):
        for detector in options.detectors:
            for look in LOOKS:
                names = [detector] if look == "none" else [detector, look]
                engines = [material.build(name, options.data, precision="fp32") for name in names]
                start_s = time.process_time()
                seen = pictures_with_rows(pictures, *engines)
                ms = 1000 * (time.process_time() - start_s) / max(1, len(pictures))
                rows.append({"pictures": kind, "count": len(pictures), "detector": detector, "landmarks": look,
                             "false faces": len(seen), "CPU ms for each": f"{ms:.0f}"})  # fmt: skip
                notes.append(f"{kind}, {detector}, {look}: {', '.join(Path(name).name for name in seen) or 'none'}")
                print(rows[-1], flush=True)
    write_results("false_faces", "Faces in pictures without one", rows, notes)


if __name__ == "__main__":
    main()
