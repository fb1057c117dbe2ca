#!/usr/bin/env python3
"""Serve InsightFace's `FaceAnalysis` with FastAPI, as its users write it: one route, one call for each photo.

server.py runs this file with the Python of an environment that has `insightface`, `onnxruntime`, `fastapi`, `uvicorn`
and `opencv-python-headless`:

    python benchmarks/insightface_server.py FOLDER

FOLDER/models/local holds a detector and an embedding network as ONNX files. Prints the address once it listens.
"""

from __future__ import annotations

import socket
import sys
from typing import Any


def main() -> None:
    import cv2
    import numpy as np
    import uvicorn
    from fastapi import Body, FastAPI
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(name="local", root=sys.argv[1], providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=-1, det_size=(640, 640))  # as its README and its users write it
    app = FastAPI()

    @app.post("/api/v1/recognition")
    def recognition(photo: bytes = Body(media_type="image/jpeg")) -> list[dict[str, Any]]:
        image = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        return [
            {"box": face.bbox.tolist(), "landmarks": face.kps.tolist(), "embedding": face.normed_embedding.tolist()}
            for face in analysis.get(image, max_num=1)
        ]

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
