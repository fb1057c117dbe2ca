#!/usr/bin/env python3
"""Embed photos by the recipe most people write: thread pool, `cv2.imread`, batches of 128, one session, h5py appends.

Run by peers.py:

    python benchmarks/classic_recipe.py LIST EMBEDDING.onnx OUT.h5 INPUT SIZE MEAN STD

MEAN and STD are three numbers, separated by commas. Prints one line of JSON with the number of photos and the seconds.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import h5py
import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCH = 128


def main() -> None:
    list_file, weights, output, name, side, mean_text, std_text = sys.argv[1:]
    paths, size = Path(list_file).read_text(encoding="utf-8").splitlines(), int(side)
    mean, std = (np.array(text.split(","), np.float32) for text in (mean_text, std_text))
    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])

    def load(path: str) -> NDArray[np.float32]:
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (size, size))
        return ((image.astype(np.float32) - mean) / std).transpose(2, 0, 1)

    began, count = time.perf_counter(), 0
    with ThreadPoolExecutor() as pool, h5py.File(output, "w") as file:
        for start in range(0, len(paths), BATCH):
            batch = np.stack(list(pool.map(load, paths[start : start + BATCH])))
            vectors = session.run(None, {name: batch})[0].reshape(len(batch), -1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            if "embeddings" not in file:
                shape = (0, vectors.shape[1])
                file.create_dataset("embeddings", shape, maxshape=(None, shape[1]), dtype=np.float32, chunks=True)
            file["embeddings"].resize(count + len(batch), axis=0)
            file["embeddings"][count:] = vectors
            count += len(batch)
    print(json.dumps({"photographs": count, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
