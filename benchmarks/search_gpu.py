#!/usr/bin/env python3
"""Search in 5,000,000 x 512 rows on a GPU: is the answer NumPy's exact one, and how long does one query take?

    python benchmarks/search_gpu.py
    python benchmarks/search_gpu.py --rows 1000000 --dimension 128 -k 10 --seconds 100
    python benchmarks/search_gpu.py --device cpu --rows 20000     # to try it: FAISS's indexes on the CPU in their place

The rows are seeded unit vectors in clusters, with exact copies, like those of search_exact.py. They are made in memory
(10 GB) and written to no disk. What is required, FP16 on the GPU, is measured first; each placement is written down
before the next one begins, so that a run that is stopped leaves what it has measured.
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
_FEW = 3  # runs of what takes a second and more
_CPU = "FAISS on the CPU"
_STARTED = time.monotonic()

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


class CountedSource:
    """A source, and how many queries it was asked."""

    def __init__(self, source: CandidateSource) -> None:
        self.error, self.max_hits, self.counts = source.error, source.max_hits, source.counts
        self._source = source
        self.asked = 0

    def candidates(self, queries: Vectors, count: int) -> Candidates:
        """See CandidateSource.candidates."""
        self.asked += len(queries)
        return self._source.candidates(queries, count)


class CountedHost:
    """FAISS's index of the exact rows, and how many passes over all of them were made."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.passes = 0

    def range_search(self, queries: Vectors, bound: float) -> Any:
        """See faiss.IndexFlat."""
        self.passes += len(queries)
        return self._index.range_search(queries, bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def host_index(rows: int, dimension: int, seed: int) -> Any:
    """FAISS's flat index of generated rows, made where it keeps them: a second copy would cost 10 GB, and their time.

    Clusters of five; one row in a hundred is a copy of the row before it.
    """
    import faiss

    host = faiss.IndexFlatIP(dimension)
    host.codes.resize(4 * rows * dimension)
    host.ntotal = rows
    made = host_vectors(host)

    def fill(start: int) -> None:
        # Uniform numbers, since normal ones take four times as long; in 512 dimensions no one can tell.
        rng = np.random.Generator(np.random.SFC64((seed, start)))
        block = made[start : start + _BLOCK]
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


def queries_for(host: Any, count: int, seed: int) -> Vectors:
    """Half of them are rows, so that they have near neighbours and copies; half are near to nobody."""
    near = host_vectors(host)[: count - count // 2].copy()
    far = np.random.default_rng((seed, 1)).standard_normal((count - len(near), host.d), np.float32)
    return np.concatenate([near, far / np.linalg.norm(far, axis=1, keepdims=True)])


def numpy_rows(rows: Vectors, queries: Vectors, k: int) -> Rows:
    """(q, k) best rows by double precision, block by block; the lower row first among equal scores."""
    wide = queries.astype(np.float64)
    space = np.empty(
        (min(_BLOCK, len(rows)), rows.shape[1])
    )  # float64; filled again for each block: new memory is slow
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    lowest = np.full(len(queries), -np.inf, np.float32)  # of k, once there are as many
    for start in range(0, len(rows), _BLOCK):
        block = space[: len(rows) - start]
        block[:] = rows[start : start + _BLOCK]
        scored = (wide @ block.T).astype(np.float32)  # (q, b)
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


def times_ms(work: Callable[[Vectors], object], queries: Vectors, runs: int) -> list[float]:
    """Times of `runs` calls with one query each, in turns, after one call that does not count."""
    work(queries[:1])
    times = []
    for number in range(runs):
        at = number % len(queries)
        began = time.perf_counter()
        work(queries[at : at + 1])
        times.append(1000 * (time.perf_counter() - began))
    return times


def measure(
    make: Callable[[], CandidateSource], index: Any, queries: Vectors, expected: Rows, runs: int
) -> dict[str, object]:
    """The figures of one placement."""
    k = expected.shape[1]
    began = time.perf_counter()
    source = make()
    upload_s = time.perf_counter() - began
    counted, host = CountedSource(source), CountedHost(index)
    found, _ = exact_top_k(host, counted, queries, k)
    first = min(next(iter(source.counts(k))), index.ntotal)
    one = times_ms(lambda query: exact_top_k(index, source, query, k), queries, runs)
    alone = times_ms(lambda query: source.candidates(query, first), queries, runs)
    began = time.perf_counter()
    exact_top_k(index, source, queries, k)
    many_s = time.perf_counter() - began
    hits = sum(len(np.intersect1d(mine, theirs)) for mine, theirs in zip(found, expected, strict=True))
    return {
        "upload s": upload_s,
        "one query ms": statistics.median(one),
        "slowest ms": max(one),
        "candidates alone ms": statistics.median(alone),
        "ms a query in a batch": 1000 * many_s / len(queries),
        "recall": hits / expected.size,
        "same rows": f"{int((found == expected).all(axis=1).sum())} of {len(queries)}",
        "asked again": counted.asked - len(queries),
        "full passes": host.passes,
    }


def source_for(plan: MemoryPlan | None, device: str, host: Any) -> CandidateSource:
    """Rows placed by a plan; where there is none, FAISS on the CPU."""
    if plan is None:
        return HostRows(host)
    return stand_in(plan, host) if device == "cpu" else gpu_source(GpuPlan(int(device), plan), host)


def stand_in(plan: MemoryPlan, host: Any) -> CandidateSource:
    """What `gpu_source` does, with FAISS's indexes on the CPU."""
    import faiss

    def new_index(half: bool) -> Any:
        if half:
            kind = faiss.ScalarQuantizer.QT_fp16
            return faiss.IndexScalarQuantizer(host.d, kind, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexFlatIP(host.d)

    return planned_source(plan, host, new_index)


def measure_all(given: argparse.Namespace, gpu: str, free: int) -> list[str]:
    """Measure every placement and the CPU, and write the results after each; returns what went wrong."""
    rows, dimension, k = given.rows, given.dimension, min(given.k, given.rows)
    count = min(given.queries, 2 * rows)
    few = min(_FEW, given.runs)
    notes = [
        f"GPU: {gpu}",
        f"Recall and same rows: of the {k} best, against NumPy in double precision. Half of the {count} "
        f"queries are rows with near neighbours and copies, half are near to nobody",
        f"One query: median of {given.runs} (on the CPU and streamed: {few}) with the proof and the exact scores; "
        f"candidates alone: FAISS's part of it, with the copies to and from the GPU",
        "Asked again: queries whose answer took more candidates to prove. Full passes: over all rows, on the CPU",
    ]
    table: list[dict[str, object]] = []
    failed: list[str] = []

    def write(*, quiet: bool) -> None:
        title = f"Exact search on a GPU, {rows:,} x {dimension} rows, the {k} best"
        name = "search_gpu_stand_in" if given.device == "cpu" else "search_gpu"
        write_results(name, title, with_ratios(table), notes, folder=given.out, quiet=quiet)

    write(quiet=True)  # so that nobody takes an older run's figures for this one's
    host = host_index(rows, dimension, given.seed)
    queries = queries_for(host, count, given.seed)
    say(f"{elapsed_s():.0f} s: NumPy's answers in double precision")
    expected = numpy_rows(host_vectors(host), queries, k)
    size = {"rows": rows, "dimension": dimension, "queries": count}
    plans: dict[str, Callable[[], MemoryPlan | None]] = {
        "FP16 on the GPU": lambda: resident_plan(**size, half=True),
        _CPU: lambda: None,
        "FP32 on the GPU": lambda: resident_plan(**size, half=False),
        "FP16 in one index": lambda: resident_plan(**size, half=True, pieces=1),
        "FP32 streamed": lambda: streamed_plan(**size, free_bytes=min(free, int(given.streamed_gb * 1e9))),
    }
    if resident_plan(**size, half=True).shard_rows == rows:
        del plans["FP16 in one index"]  # it is the first one
    for where, planned in plans.items():
        if elapsed_s() > given.seconds:
            notes.append(f"{where}: left out: the {given.seconds:g} s of --seconds were over")
            continue
        say(f"{elapsed_s():.0f} s: {where}")
        try:
            plan = planned()
            if plan is not None:
                if plan.device_bytes > free:
                    raise OutOfMemoryError(f"{plan.device_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
                notes.append(f"{where}: {plan}")
            runs = few if plan is None or plan.placement == "streamed" else given.runs
            figures = measure(partial(source_for, plan, given.device, host), host, queries, expected, runs)
            gigabytes = (4 * rows * dimension if plan is None else plan.vector_bytes) / 1e9
            table.append({"rows are": where, "GB there": gigabytes, **figures})
            if figures["same rows"] != f"{count} of {count}":
                failed.append(f"{where}: not NumPy's answers")
                notes.append(failed[-1])
        except OutOfMemoryError as err:
            notes.append(f"{where}: not measured: {err.message}")
        except Exception as err:  # the others are measured all the same: a GPU is not at hand every day
            traceback.print_exc()
            failed.append(f"{where}: failed: {' '.join(str(err).split())}")
            notes.append(failed[-1])
        write(quiet=True)
    write(quiet=False)
    return failed


def with_ratios(table: list[dict[str, object]]) -> list[dict[str, object]]:
    """The table, and how much faster than the CPU each is, once the CPU is among them."""
    cpu_ms = [float(str(row["one query ms"])) for row in table if row["rows are"] == _CPU]
    return [
        {**row, "faster than the CPU": cpu_ms[0] / float(str(row["one query ms"])) if cpu_ms else ""} for row in table
    ]


def elapsed_s() -> float:
    """Since this script began."""
    return time.monotonic() - _STARTED


def say(text: str) -> None:
    """To stderr, at once: a run takes minutes."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument(
        "--runs", type=int, default=30, help=f"single queries timed, at most {_FEW} of slow ones; default: 30"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no placement later; default: no limit")
    parser.add_argument("--streamed-gb", type=float, default=6.0, help="memory that streaming may use; default: 6")
    parser.add_argument("--device", default="0", help="number of a GPU, or cpu; default: 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    given = parser.parse_args()
    if given.device != "cpu" and not given.device.isdecimal():
        parser.error(f"--device is {given.device}; wanted: the number of a GPU, or cpu")
    if min(given.rows, given.dimension, given.queries, given.k, given.runs) < 1:
        parser.error("--rows, --dimension, --queries, -k and --runs are 1 or more")
    gpu, free = "none, FAISS on the CPU in its place", 1 << 50
    try:
        if given.device != "cpu":
            name, free = gpu_memory(int(given.device))
            gpu = f"{name}, {free / 1e9:.2f} GB free at the start"
    except FacemillError as err:
        say(f"search_gpu.py needs a GPU: {err.message}")
        raise SystemExit(2) from err
    say(f"GPU: {gpu}; making {given.rows:,} x {given.dimension} rows")
    failed = measure_all(given, gpu, free)
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()
