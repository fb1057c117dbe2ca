#!/usr/bin/env python3
"""Search 5,000,000 x 512 rows on a GPU: compare the answers with NumPy's exact ones, and time single queries.

    python benchmarks/search_gpu.py
    python benchmarks/search_gpu.py --rows 1000000 --dimension 128 -k 10 --seconds 100
    python benchmarks/search_gpu.py --device cpu --rows 20000     # to try it with FAISS's indexes on the CPU

The rows are seeded unit vectors in clusters, with exact copies, like those of search_exact.py. They are generated in
memory (10 GB) and never written to disk. FP16 on the GPU, which is required, is measured first. The results are written
after each placement, so that a stopped run keeps its figures.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import RESULTS, write_results

from runtime.errors import FacemillError, OutOfMemoryError
from runtime.index.candidates import HostRows
from runtime.index.exact import Candidates, CandidateSource, exact_top_k
from runtime.index.gpu import gpu_memory
from runtime.index.memoryplan import MemoryPlan, resident_plan, streamed_plan
from runtime.index.placement import GpuPlan, gpu_source, host_vectors, planned_source

_BLOCK = 10_000
_PER_PERSON = 5
_SLOW_RUNS = 3  # runs of a query that takes a second or more
_CPU = "FAISS on the CPU"
_STARTED = time.monotonic()

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


class CountedSource:
    """A source that counts the queries it is asked."""

    def __init__(self, source: CandidateSource) -> None:
        self.error, self.max_hits, self.counts = source.error, source.max_hits, source.counts
        self._source = source
        self.asked = 0

    def candidates(self, queries: Vectors, count: int) -> Candidates:
        """Count the queries, and return the source's candidates."""
        self.asked += len(queries)
        return self._source.candidates(queries, count)


class CountedHost:
    """FAISS's index of the exact rows, which counts full passes over them."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.passes = 0

    def range_search(self, queries: Vectors, bound: float) -> Any:
        """Count the passes, and return the index's answer."""
        self.passes += len(queries)
        return self._index.range_search(queries, bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def make_host_index(rows: int, dimension: int, seed: int) -> Any:
    """Generate rows in FAISS's flat index in place, because a second copy would cost 10 GB and time.

    Rows are in clusters of five; one row in a hundred is a copy of the row before it.
    """
    import faiss

    host = faiss.IndexFlatIP(dimension)
    host.codes.resize(4 * rows * dimension)
    host.ntotal = rows
    vectors = host_vectors(host)

    def fill(start: int) -> None:
        # Uniform numbers: normal ones take four times as long, and sums over 512 dimensions are distributed equally.
        rng = np.random.Generator(np.random.SFC64((seed, start)))
        block = vectors[start : start + _BLOCK]
        rng.random(dtype=np.float32, out=block)
        block -= np.float32(0.5)
        people = rng.random((-(-len(block) // _PER_PERSON), dimension), np.float32) - np.float32(0.5)
        people *= np.float32(1.7)
        for shot in range(_PER_PERSON):
            same = block[shot::_PER_PERSON]
            same += people[: len(same)]
        block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
        block[1::100] = block[0:-1:100]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(fill, range(0, rows, _BLOCK)))
    return host


def make_queries(host: Any, count: int, seed: int) -> Vectors:
    """Make queries: half are rows, which have near neighbours and copies; half are near no row."""
    near = host_vectors(host)[: count - count // 2].copy()
    far = np.random.default_rng((seed, 1)).standard_normal((count - len(near), host.d), np.float32)
    return np.concatenate([near, far / np.linalg.norm(far, axis=1, keepdims=True)])


def numpy_rows(rows: Vectors, queries: Vectors, k: int) -> Rows:
    """(q, k) best rows in double precision, block by block; among equal scores, the lower row comes first."""
    queries64 = queries.astype(np.float64)
    space = np.empty(
        (min(_BLOCK, len(rows)), rows.shape[1])
    )  # float64; filled again for each block: new memory is slow
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    lowest = np.full(len(queries), -np.inf, np.float32)  # k-th best score, once there are k
    for start in range(0, len(rows), _BLOCK):
        block = space[: len(rows) - start]
        block[:] = rows[start : start + _BLOCK]
        scored = (queries64 @ block.T).astype(np.float32)  # (q, b)
        hits = scored >= lowest[:, None]
        for i in np.flatnonzero(hits.any(axis=1)):
            new = np.flatnonzero(hits[i])
            scores = np.concatenate([best[i][0], scored[i, new]])
            numbers = np.concatenate([best[i][1], new + start])
            order = np.lexsort((numbers, -scores))[:k]
            best[i] = scores[order], numbers[order]
            if len(order) == k:
                lowest[i] = scores[order[-1]]
    return np.stack([numbers for _, numbers in best])


def time_queries_ms(work: Callable[[Vectors], object], queries: Vectors, runs: int) -> list[float]:
    """Times of `runs` calls with one query each in milliseconds, after a warm-up call."""
    work(queries[:1])
    times = []
    for number in range(runs):
        index = number % len(queries)
        began = time.perf_counter()
        work(queries[index : index + 1])
        times.append(1000 * (time.perf_counter() - began))
    return times


def measure(
    make: Callable[[], CandidateSource], index: Any, queries: Vectors, expected: Rows, runs: int
) -> dict[str, object]:
    """Measure one placement."""
    k = expected.shape[1]
    began = time.perf_counter()
    source = make()
    upload_s = time.perf_counter() - began
    counted, host = CountedSource(source), CountedHost(index)
    best_rows, _ = exact_top_k(host, counted, queries, k)
    first = min(next(iter(source.counts(k))), index.ntotal)
    single_ms = time_queries_ms(lambda query: exact_top_k(index, source, query, k), queries, runs)
    candidates_ms = time_queries_ms(lambda query: source.candidates(query, first), queries, runs)
    began = time.perf_counter()
    exact_top_k(index, source, queries, k)
    many_s = time.perf_counter() - began
    hits = sum(len(np.intersect1d(ours, theirs)) for ours, theirs in zip(best_rows, expected, strict=True))
    return {
        "upload s": upload_s,
        "one query ms": statistics.median(single_ms),
        "slowest ms": max(single_ms),
        "candidates alone ms": statistics.median(candidates_ms),
        "ms a query in a batch": 1000 * many_s / len(queries),
        "recall": hits / expected.size,
        "same rows": f"{int((best_rows == expected).all(axis=1).sum())} of {len(queries)}",
        "asked again": counted.asked - len(queries),
        "full passes": host.passes,
    }


def make_source(plan: MemoryPlan | None, device: str, host: Any) -> CandidateSource:
    """Make the source of rows that a plan places; without a plan, FAISS on the CPU."""
    if plan is None:
        return HostRows(host)
    return make_stand_in(plan, host) if device == "cpu" else gpu_source(GpuPlan(int(device), plan), host)


def make_stand_in(plan: MemoryPlan, host: Any) -> CandidateSource:
    """Do what `gpu_source` does, with FAISS's indexes on the CPU."""
    import faiss

    def new_index(half: bool) -> Any:
        if half:
            kind = faiss.ScalarQuantizer.QT_fp16
            return faiss.IndexScalarQuantizer(host.d, kind, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexFlatIP(host.d)

    return planned_source(plan, host, new_index)


def measure_all(options: argparse.Namespace, gpu: str, free: int) -> list[str]:
    """Measure every placement and the CPU, and write the results after each; returns the failures."""
    rows, dimension, k = options.rows, options.dimension, min(options.k, options.rows)
    count = min(options.queries, 2 * rows)
    slow_runs = min(_SLOW_RUNS, options.runs)
    notes = [
        f"GPU: {gpu}",
        f"Recall and same rows: of the {k} best, compared with NumPy in double precision. Half of the {count} "
        f"queries are rows with near neighbours and copies, half are near no row",
        f"One query: median of {options.runs} (on the CPU and streamed: {slow_runs}) with the proof and the exact "
        f"scores; candidates alone: FAISS's part of it, with the copies to and from the GPU",
        "Asked again: queries that needed more candidates to prove the answer. Full passes: over all rows, on the CPU",
    ]
    table: list[dict[str, object]] = []
    failed: list[str] = []

    def write(*, quiet: bool) -> None:
        title = f"Exact search on a GPU, {rows:,} x {dimension} rows, the {k} best"
        name = "search_gpu_stand_in" if options.device == "cpu" else "search_gpu"
        write_results(name, title, add_ratios(table), notes, folder=options.out, quiet=quiet)

    write(quiet=True)  # overwrites the figures of an older run
    host = make_host_index(rows, dimension, options.seed)
    queries = make_queries(host, count, options.seed)
    log(f"{elapsed_s():.0f} s: NumPy's answers in double precision")
    expected = numpy_rows(host_vectors(host), queries, k)
    size = {"rows": rows, "dimension": dimension, "queries": count}
    plans: dict[str, Callable[[], MemoryPlan | None]] = {
        "FP16 on the GPU": lambda: resident_plan(**size, half=True),
        _CPU: lambda: None,
        "FP32 on the GPU": lambda: resident_plan(**size, half=False),
        "FP16 in one index": lambda: resident_plan(**size, half=True, pieces=1),
        "FP32 streamed": lambda: streamed_plan(**size, free_bytes=min(free, int(options.streamed_gb * 1e9))),
    }
    if resident_plan(**size, half=True).shard_rows == rows:
        del plans["FP16 in one index"]  # it equals the first one
    for label, make_plan in plans.items():
        if elapsed_s() > options.seconds:
            notes.append(f"{label}: left out: the {options.seconds:g} s of --seconds were over")
            continue
        log(f"{elapsed_s():.0f} s: {label}")
        try:
            plan = make_plan()
            if plan is not None:
                if plan.device_bytes > free:
                    raise OutOfMemoryError(f"{plan.device_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
                notes.append(f"{label}: {plan}")
            runs = slow_runs if plan is None or plan.placement == "streamed" else options.runs
            figures = measure(partial(make_source, plan, options.device, host), host, queries, expected, runs)
            gigabytes = (4 * rows * dimension if plan is None else plan.vector_bytes) / 1e9
            table.append({"rows are": label, "GB there": gigabytes, **figures})
            if figures["same rows"] != f"{count} of {count}":
                failed.append(f"{label}: the answers differ from NumPy's")
                notes.append(failed[-1])
        except OutOfMemoryError as err:
            notes.append(f"{label}: not measured: {err.message}")
        except Exception as err:  # measure the others anyway: time on a GPU is rare
            traceback.print_exc()
            failed.append(f"{label}: failed: {' '.join(str(err).split())}")
            notes.append(failed[-1])
        write(quiet=True)
    write(quiet=False)
    return failed


def add_ratios(table: list[dict[str, object]]) -> list[dict[str, object]]:
    """Add how much faster than the CPU each placement is, once the CPU has been measured."""
    cpu_ms = [float(str(row["one query ms"])) for row in table if row["rows are"] == _CPU]
    return [
        {**row, "faster than the CPU": cpu_ms[0] / float(str(row["one query ms"])) if cpu_ms else ""} for row in table
    ]


def elapsed_s() -> float:
    """Seconds since this script started."""
    return time.monotonic() - _STARTED


def log(text: str) -> None:
    """Print to stderr at once, because a run takes minutes."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument(
        "--runs",
        type=int,
        default=30,
        help=f"single queries to time, at most {_SLOW_RUNS} if they are slow; default: 30",
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="start no placement after this many seconds; default: no limit"
    )
    parser.add_argument(
        "--streamed-gb", type=float, default=6.0, help="GPU memory that streaming may use, in GB; default: 6"
    )
    parser.add_argument("--device", default="0", help="number of the GPU, or cpu; default: 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results; default: benchmarks/results")
    options = parser.parse_args()
    if options.device != "cpu" and not options.device.isdecimal():
        parser.error(f"--device is {options.device}; expected: the number of a GPU, or cpu")
    if min(options.rows, options.dimension, options.queries, options.k, options.runs) < 1:
        parser.error("--rows, --dimension, --queries, -k and --runs: expected 1 or more")
    gpu, free = "none, FAISS on the CPU in its place", 1 << 50
    try:
        if options.device != "cpu":
            name, free = gpu_memory(int(options.device))
            gpu = f"{name}, {free / 1e9:.2f} GB free at the start"
    except FacemillError as err:
        log(f"search_gpu.py needs a GPU: {err.message}")
        raise SystemExit(2) from err
    log(f"GPU: {gpu}; generating {options.rows:,} x {options.dimension} rows")
    failed = measure_all(options, gpu, free)
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()
