#!/usr/bin/env python3
"""Search in 1,000,000 x 128 rows: is the answer NumPy's exact one, and how long does it take?

    python benchmarks/search_exact.py
    python benchmarks/search_exact.py --rows 100000 --dimension 512

The rows are unit vectors in clusters, as photographs of the same people would be, with exact duplicates among them.
They are written as an embedding file by the storage room itself, and searched by the index room. The oracle is a
blockwise matrix product in double precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import write_results

from runtime.index.flat import FlatIndex
from runtime.records import Embedded
from runtime.storage.dataset import assemble
from runtime.storage.file import EmbeddingFile
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter

_BLOCK = 50_000
_PER_PERSON = 5


def vectors(rows: int, dimension: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Unit rows in clusters of five; one row in a hundred is a copy of the row before it. Made on all cores."""

    def make(start: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((seed, start))
        size = min(_BLOCK, rows - start)
        people = rng.standard_normal((-(-size // _PER_PERSON), dimension), np.float32)
        block = np.repeat(people, _PER_PERSON, axis=0)[:size] + 0.6 * rng.standard_normal((size, dimension), np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        block[1::100] = block[0:-1:100]
        return block

    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        for first in range(0, rows, cores * _BLOCK):  # as many at once as there are cores: memory stays bounded
            yield from pool.map(make, range(first, min(first + cores * _BLOCK, rows), _BLOCK))


def write_gallery(folder: Path, rows: int, dimension: int, seed: int) -> Path:
    """An embedding file as `process` makes it, of generated rows."""
    segments = folder / "segments"
    segments.mkdir()
    writer = SegmentWriter(
        segments, plan_id="b", dimension=dimension, dtype="float32", digests=False, rules=SegmentRules()
    )
    start = 0
    for block in vectors(rows, dimension, seed):
        writer.append(Embedded(np.arange(start, start + len(block)), embeddings=block))
        start += len(block)
    writer.commit()
    contract = json.dumps({"root": "/photos", "dimension": dimension})
    paths = [f"person-{row // _PER_PERSON:07d}/shot-{row % _PER_PERSON}.jpg".encode() for row in range(rows)]
    output = folder / "people.h5"
    with Ledger(rows, segments, "b") as ledger:
        assemble(output, ledger, paths, {"dimension": dimension, "contract": contract}, "float32")
    return output


def numpy_exact(
    rows: int, dimension: int, seed: int, queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows of each query by double precision; the lower row first among equal scores."""
    wide = queries.astype(np.float64)
    found_rows = np.empty((len(queries), 0), np.int64)
    found = np.empty((len(queries), 0), np.float32)
    start = 0
    for block in vectors(rows, dimension, seed):
        here = (wide @ block.T.astype(np.float64)).astype(np.float32)
        found = np.concatenate([found, here], axis=1)
        found_rows = np.concatenate(
            [found_rows, np.broadcast_to(np.arange(start, start + len(block)), here.shape)], axis=1
        )
        order = np.stack([np.lexsort((r, -s))[:k] for r, s in zip(found_rows, found, strict=True)])
        found, found_rows = np.take_along_axis(found, order, 1), np.take_along_axis(found_rows, order, 1)
        start += len(block)
    return found_rows, found


def numpy_fast(
    data: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What one would write in NumPy for speed: single precision, all rows in memory."""
    scores = queries @ data.T
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    top = np.take_along_axis(scores, best, 1)
    order = np.argsort(-top, axis=1)
    return np.take_along_axis(best, order, 1), np.take_along_axis(top, order, 1)


def median_ms(work: Callable[[], object], runs: int) -> float:
    """Median time of one call, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shape = (given.rows, given.dimension, given.seed)
    rng = np.random.default_rng((given.seed, 1))
    near = next(vectors(*shape))[: given.queries // 2]  # half of the queries are rows, with their copies
    far = rng.standard_normal((given.queries - len(near), given.dimension), np.float32)
    queries = np.concatenate([near, far / np.linalg.norm(far, axis=1, keepdims=True)])

    with tempfile.TemporaryDirectory() as folder:
        path = write_gallery(Path(folder), *shape)
        with EmbeddingFile(path) as gallery:
            start = time.perf_counter()
            with FlatIndex(gallery):
                build_s = time.perf_counter() - start
            start = time.perf_counter()
            with FlatIndex(gallery) as index:
                open_ms = 1000 * (time.perf_counter() - start)
                rows, scores = index.search(queries, given.k)
                one = median_ms(lambda: index.search(queries[:1], given.k), given.runs)
                many = median_ms(lambda: index.search(queries, given.k), given.runs)
    exact_rows, exact_scores = numpy_exact(*shape, queries, given.k)
    data = np.concatenate(list(vectors(*shape)))
    numpy_one = median_ms(lambda: numpy_fast(data, queries[:1], given.k), given.runs)
    step = max(1, 20_000_000 // given.rows)
    numpy_many = median_ms(
        lambda: [numpy_fast(data, queries[i : i + step], given.k) for i in range(0, len(queries), step)], given.runs
    )

    same_rows = int((rows == exact_rows).all(axis=1).sum())
    worst = float(np.abs(scores - exact_scores).max())
    write_results(
        "search_exact",
        f"Exact search, {given.rows:,} x {given.dimension} rows, the {given.k} best",
        [
            {"search": "one query", "facemill ms": one, "numpy ms": numpy_one, "ratio": numpy_one / one},
            {
                "search": f"{given.queries} queries at once",
                "facemill ms": many,
                "numpy ms": numpy_many,
                "ratio": numpy_many / many,
            },
        ],
        [
            f"Queries whose rows all equal NumPy's (double precision, lower row first among equal scores): {same_rows} "
            f"of {given.queries}; largest difference of a score: {worst:.1e}",
            f"Making the index: {build_s:.2f} s; opening it: {open_ms:.1f} ms (it is mapped, not loaded)",
            f"Medians of {given.runs} runs after one that does not count; NumPy's times are of single precision and "
            f"argpartition with all rows in memory, {step} queries at a time",
        ],
    )
    if same_rows != given.queries or worst > 1e-6:
        raise SystemExit("the answers are not NumPy's")


if __name__ == "__main__":
    main()
