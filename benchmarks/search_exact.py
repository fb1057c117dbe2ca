#!/usr/bin/env python3
"""Search 1,000,000 x 128 rows: compare the answers with NumPy's exact ones, and the times with NumPy's.

    python benchmarks/search_exact.py
    python benchmarks/search_exact.py --rows 100000 --dimension 512

The rows are unit vectors in clusters, like several photos of each person, and some are exact duplicates. facemill
writes them to an embedding file and searches it. The oracle is a blockwise matrix product in double precision.
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


def generate_rows(rows: int, dimension: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Generate unit rows in clusters of five on all cores; one row in a hundred is a copy of the row before it."""

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
        for first in range(0, rows, cores * _BLOCK):  # one block per core at a time: memory stays bounded
            yield from pool.map(make, range(first, min(first + cores * _BLOCK, rows), _BLOCK))


def write_embedding_file(folder: Path, rows: int, dimension: int, seed: int) -> Path:
    """Write generated rows to an embedding file, as `process` does."""
    segments = folder / "segments"
    segments.mkdir()
    writer = SegmentWriter(
        segments, plan_id="b", dimension=dimension, dtype="float32", digests=False, rules=SegmentRules()
    )
    start = 0
    for block in generate_rows(rows, dimension, seed):
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
    """The k best rows of each query in double precision; among equal scores, the lower row comes first."""
    queries64 = queries.astype(np.float64)
    best_rows = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    start = 0
    for block in generate_rows(rows, dimension, seed):
        scores = (queries64 @ block.T.astype(np.float64)).astype(np.float32)
        best_scores = np.concatenate([best_scores, scores], axis=1)
        best_rows = np.concatenate(
            [best_rows, np.broadcast_to(np.arange(start, start + len(block)), scores.shape)], axis=1
        )
        order = np.stack([np.lexsort((r, -s))[:k] for r, s in zip(best_rows, best_scores, strict=True)])
        best_scores, best_rows = np.take_along_axis(best_scores, order, 1), np.take_along_axis(best_rows, order, 1)
        start += len(block)
    return best_rows, best_scores


def numpy_fast(
    data: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The fast way in NumPy: single precision, all rows in memory."""
    scores = queries @ data.T
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    top = np.take_along_axis(scores, best, 1)
    order = np.argsort(-top, axis=1)
    return np.take_along_axis(best, order, 1), np.take_along_axis(top, order, 1)


def median_ms(work: Callable[[], object], runs: int) -> float:
    """Median time of one call in milliseconds, after a warm-up call."""
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
    options = parser.parse_args()
    shape = (options.rows, options.dimension, options.seed)
    rng = np.random.default_rng((options.seed, 1))
    near = next(generate_rows(*shape))[: options.queries // 2]  # half of the queries are rows of the file
    far = rng.standard_normal((options.queries - len(near), options.dimension), np.float32)
    queries = np.concatenate([near, far / np.linalg.norm(far, axis=1, keepdims=True)])

    with tempfile.TemporaryDirectory() as folder:
        path = write_embedding_file(Path(folder), *shape)
        with EmbeddingFile(path) as file:
            start = time.perf_counter()
            with FlatIndex(file):
                build_s = time.perf_counter() - start
            start = time.perf_counter()
            with FlatIndex(file) as index:
                open_ms = 1000 * (time.perf_counter() - start)
                rows, scores = index.search(queries, options.k)
                single_ms = median_ms(lambda: index.search(queries[:1], options.k), options.runs)
                batch_ms = median_ms(lambda: index.search(queries, options.k), options.runs)
    exact_rows, exact_scores = numpy_exact(*shape, queries, options.k)
    data = np.concatenate(list(generate_rows(*shape)))
    numpy_single_ms = median_ms(lambda: numpy_fast(data, queries[:1], options.k), options.runs)
    step = max(1, 20_000_000 // options.rows)
    numpy_batch_ms = median_ms(
        lambda: [numpy_fast(data, queries[i : i + step], options.k) for i in range(0, len(queries), step)], options.runs
    )

    same_rows = int((rows == exact_rows).all(axis=1).sum())
    worst = float(np.abs(scores - exact_scores).max())
    write_results(
        "search_exact",
        f"Exact search, {options.rows:,} x {options.dimension} rows, the {options.k} best",
        [
            {
                "search": "one query",
                "facemill ms": single_ms,
                "numpy ms": numpy_single_ms,
                "ratio": numpy_single_ms / single_ms,
            },
            {
                "search": f"{options.queries} queries at once",
                "facemill ms": batch_ms,
                "numpy ms": numpy_batch_ms,
                "ratio": numpy_batch_ms / batch_ms,
            },
        ],
        [
            f"Queries whose rows all equal NumPy's (double precision, lower row first among equal scores): {same_rows} "
            f"of {options.queries}; largest difference of a score: {worst:.1e}",
            f"Building the index: {build_s:.2f} s; opening it: {open_ms:.1f} ms (it is mapped, not loaded)",
            f"Medians of {options.runs} runs after a warm-up; NumPy uses single precision and argpartition, with all "
            f"rows in memory and {step} queries at a time",
        ],
    )
    if same_rows != options.queries or worst > 1e-6:
        raise SystemExit("the answers differ from NumPy's exact ones")


if __name__ == "__main__":
    main()
