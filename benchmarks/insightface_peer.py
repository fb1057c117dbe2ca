#!/usr/bin/env python3
"""Run InsightFace on a list of photos, one at a time, as its users do.

portraits_speed.py and peers.py run this file with the Python of an environment that has `insightface`, `onnxruntime`
and `opencv-python-headless`:

    python benchmarks/insightface_peer.py LIST DETECTOR.onnx EMBEDDING.onnx
    python benchmarks/insightface_peer.py LIST - EMBEDDING.onnx               # aligned crops

Prints one line of JSON with the number of photos, the number of faces and the seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    import cv2
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    from insightface.model_zoo.scrfd import SCRFD

    paths = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    recogniser = ArcFaceONNX(sys.argv[3])
    recogniser.prepare(-1)
    detector = None if sys.argv[2] == "-" else SCRFD(sys.argv[2])
    if detector is not None:
        detector.prepare(-1, input_size=(320, 320))

    def embed(path: str) -> bool:
        image = cv2.imread(path)
        if detector is None:
            recogniser.get_feat(image)
            return True
        boxes, landmarks = detector.detect(image, max_num=1)
        if len(boxes):
            recogniser.get(image, SimpleNamespace(kps=landmarks[0]))
        return bool(len(boxes))

    for path in paths[:20]:  # warm-up
        embed(path)
    began = time.perf_counter()
    faces = sum(map(embed, paths))
    print(json.dumps({"photographs": len(paths), "faces": faces, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
