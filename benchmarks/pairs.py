#!/usr/bin/env python3
"""Compare the search for all pairs of a file with the machine's own matrix products, and measure its memory.

    python benchmarks/pairs.py
    python benchmarks/pairs.py --rows 10000 --large 30000 --rounds 5

The pairs of a file of --rows are searched, and single-precision matrix products of the same tiles are timed before and
after each search, so that the compared rates are seconds apart. A product counts two operations per column; a search
counts each pair once: N (N - 1) / 2 x 2 D. Then `facemill pairs` runs once on --large rows in its own process, and the
system reports its peak memory. Rows are those of search_exact.py: five photos per person.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import write_results
from search_exact import write_embedding_file

from runtime.pairs.all_pairs import pairs_above
from runtime.pairs.tiles import TILE_ROWS
from runtime.storage.file import EmbeddingFile

_ROOT = Path(__file__).resolve().parent.parent
_THRESHOLD = 0.6


def write_rows(folder: Path, rows: int, dimension: int, seed: int) -> Path:
    """Write an embedding file in a separate process, so that its memory is not counted."""
    folder.mkdir()
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(write_embedding_file, folder, rows, dimension, seed).result()


class Sgemm:
    """NumPy's matrix product of two tiles, into preallocated memory."""

    def __init__(self, tile: NDArray[np.float32]) -> None:
        self._left, self._right = tile, tile.copy()  # NumPy computes only half of an array's product with itself
        self._out = np.empty((len(tile), len(tile)), np.float32)

    def flops(self) -> float:
        """Operations per second of one product."""
        start = time.perf_counter()
        np.matmul(self._left, self._right.T, out=self._out)
        return 2 * self._out.size * self._left.shape[1] / (time.perf_counter() - start)


def pairs_flops(file: EmbeddingFile) -> tuple[float, int]:
    """Operations per second of a search for all pairs, and the number of pairs."""
    start = time.perf_counter()
    pair_count = sum(map(len, pairs_above(file, _THRESHOLD)))
    return file.rows * (file.rows - 1) * file.dimension / (time.perf_counter() - start), pair_count


def run_pairs(path: Path) -> tuple[float, int, str]:
    """Run `facemill pairs`; returns seconds, peak memory in bytes, and its stdout."""
    arguments = ["pairs", path, "--threshold", _THRESHOLD, "-o", path.with_name("pairs.csv"), "--device", "cpu"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"facemill pairs failed with status {status}")
    return time.perf_counter() - start, 1024 * usage.ru_maxrss, output


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000, help="rows of the repeated search; default: 30000")
    parser.add_argument("--large", type=int, default=100_000, help="rows of the single run; default: 100000")
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gemm, pairs = [], []
        with EmbeddingFile(write_rows(folder / "small", options.rows, options.dimension, options.seed)) as file:
            sgemm = Sgemm(file.block(0, min(TILE_ROWS, options.rows)))
            sgemm.flops()
            for _ in range(options.rounds):
                before = sgemm.flops()
                rate, pair_count = pairs_flops(file)
                gemm.append((before + sgemm.flops()) / 2)
                pairs.append(rate)
        path = write_rows(folder / "large", options.large, options.dimension, options.seed)
        gemm_around = [sgemm.flops()]
        seconds, memory, output = run_pairs(path)
        gemm_around.append(sgemm.flops())
    ratios = [rate / limit for rate, limit in zip(pairs, gemm, strict=True)]
    large = options.large * (options.large - 1) * options.dimension / seconds
    write_results(
        "pairs",
        f"All pairs of {options.dimension} columns, compared with the machine's single-precision matrix product",
        [
            {
                "rows": options.rows,
                "pairs GFLOP/s": statistics.median(pairs) / 1e9,
                "sgemm GFLOP/s": statistics.median(gemm) / 1e9,
                "ratio": statistics.median(ratios),
                "s": options.rows * (options.rows - 1) * options.dimension / statistics.median(pairs),
                "largest memory MB": "",
            },
            {
                "rows": options.large,
                "pairs GFLOP/s": large / 1e9,
                "sgemm GFLOP/s": statistics.mean(gemm_around) / 1e9,
                "ratio": large / statistics.mean(gemm_around),
                "s": seconds,
                "largest memory MB": round(memory / 1e6),
            },
        ],
        [
            f"{options.rows:,} rows: medians of {options.rounds} rounds, each with a matrix product before and after; "
            f"{pair_count:,} pairs at {_THRESHOLD}; ratios from {min(ratios):.2f} to {max(ratios):.2f}",
            f"{options.large:,} rows: the whole command once, with its start and its CSV; it printed: "
            f"{'; '.join(line for line in output.splitlines() if not line.startswith('/'))}",
            f"sgemm: NumPy, two tiles of {min(TILE_ROWS, options.rows):,} rows; machine load at the end: "
            f"{os.getloadavg()[0]:.1f}",
        ],
        details={"pairs": pairs, "sgemm": gemm, "around": gemm_around},
    )


if __name__ == "__main__":
    main()
