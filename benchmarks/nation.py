"""Generate an embedding file of any size, spread like real embeddings, in bounded memory.

The model is LFW: 7,701 photos of 4,281 people, embedded by facemill-512. Their covariance has 152 significant
directions, each weaker than the one before by 1/54. Two photos of one person score 0.59 on average; photos of two
people score 0.00 with a standard deviation of 0.10. The generated rows have the same directions and the same scores.
Each is the sum of three normal vectors: one shared by a group of 16 look-alikes, one of the person and one of the
photo, with 0.27, 0.33 and 0.40 of the variance. Each person has one to seven photos. The highest scores of real
strangers (one pair in a million: 0.61) are between those of groups that share 0.20 (0.53) and 0.35 (0.63).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.storage.h5write import durable_h5

_DIRECTIONS, _DECAY = 152, 54.0
_GROUP, _PHOTO = 0.27, 0.40  # the rest is the person's own
_PEOPLE_PER_GROUP, _MAX_PHOTOS = 16, 7
BLOCK = 32_768


def make_block(number: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """(BLOCK, dimension) unit rows in random order; a group of look-alikes never crosses a block."""
    rng = np.random.default_rng((seed, number))
    directions = min(dimension, _DIRECTIONS)
    spread = np.exp(-np.arange(directions) / _DECAY)
    spread = np.sqrt(spread / spread.sum()).astype(np.float32)
    shape = (dimension, directions)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0].T.astype(np.float32)
    person = np.repeat(np.arange(BLOCK), rng.integers(1, _MAX_PHOTOS + 1, BLOCK))[:BLOCK]
    group = rng.integers(0, -(-(person[-1] + 1) // _PEOPLE_PER_GROUP), person[-1] + 1)[person]
    parts = ((_GROUP, group), (1 - _GROUP - _PHOTO, person), (_PHOTO, np.arange(BLOCK)))
    rows = np.zeros((BLOCK, directions), np.float32)
    for share, owner in parts:
        rows += np.float32(share**0.5) * rng.standard_normal((owner.max() + 1, directions), np.float32)[owner]
    block = (rng.permutation(rows) * spread) @ basis
    return np.asarray(block / np.linalg.norm(block, axis=1, keepdims=True), np.float32)


def generate_blocks(rows: int, dimension: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Generate all rows block by block, one block per core at a time, so that memory is bounded."""
    cores = len(os.sched_getaffinity(0))
    numbers = range(-(-rows // BLOCK))
    with ThreadPoolExecutor(cores) as pool:
        for first in range(0, len(numbers), cores):
            blocks = pool.map(lambda number: make_block(number, dimension, seed), numbers[first : first + cores])
            for number, block in zip(numbers[first : first + cores], blocks, strict=True):
                yield block[: rows - number * BLOCK]


def make_strangers(count: int, rows: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """(count, dimension) queries: new photos of people who are not in the file."""
    return make_block(-(-rows // BLOCK) + 1, dimension, seed)[:count]


def write_nation(
    path: Path, rows: int, dimension: int, seed: int, contract: Mapping[str, object] | None = None
) -> None:
    """Write the parts of an embedding file that a search reads. A failure leaves no file.

    Args:
        path: the file.
        rows, dimension: shape of the embeddings.
        seed: random seed.
        contract: that of a file whose queries the rows are searched for; None for one that names no engine.
    """
    contract_json = json.dumps({"root": "/photos", **(contract or {}), "dimension": dimension})
    attributes = {"format_version": 1, "run_id": f"nation-{rows}-{dimension}-{seed}", "dimension": dimension}
    with durable_h5(path, "the generated embedding file") as target:
        file = target.file
        vectors = file.create_dataset(
            "embeddings", (rows, dimension), np.float32, chunks=(min(rows, 4096), dimension), fletcher32=True
        )
        names = file.create_dataset("image_paths", (rows,), "S24", chunks=(min(rows, BLOCK),), compression="gzip")
        start = 0
        for block in generate_blocks(rows, dimension, seed):
            stop = start + len(block)
            vectors[start:stop] = block
            names[start:stop] = np.array([f"photograph-{row:08d}.jpg".encode() for row in range(start, stop)], "S24")
            start = stop
            target.check()
        file.create_group("metadata").attrs.update({**attributes, "contract": contract_json})
