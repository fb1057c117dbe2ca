"""The tensor names of every engine, whatever its backend."""

from __future__ import annotations

INPUT = "images"  # (N, S, S, 3) uint8
OUTPUT = "embeddings"  # (N, D) float32, unit rows
FACES = "faces"  # (N, P, V) float32: the output of a detector
LANDMARKS = "landmarks"  # (N, 15) float32: the output of a landmark network

OUTPUTS = {"embed": OUTPUT, "detect": FACES, "landmarks": LANDMARKS, "attributes": OUTPUT}  # by task
