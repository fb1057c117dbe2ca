#!/usr/bin/env python3
"""All pairs of a file: how near to the machine's own matrix products, and in how much memory?

    python benchmarks/pairs.py
    python benchmarks/pairs.py --rows 10000 --large 30000 --rounds 5

A file of --rows is searched for pairs, and before and after each search single-precision matrix products of the same
tiles are timed: the rates that are compared lie seconds apart. A product counts two operations for each column, and the
pairs count each pair once: N (N - 1) / 2 x 2 D. Then `facemill pairs` runs once on --large rows, in a process of its
own, whose memory is what the system says at its end. Rows are those of search_exact.py: five photographs a person.
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
from search_exact import write_gallery

from runtime.pairs.all_pairs import pairs_above
from runtime.pairs.tiles import TILE_ROWS
from runtime.storage.file import EmbeddingFile

_ROOT = Path(__file__).resolve().parent.parent
_THRESHOLD = 0.6


def make(folder: Path, rows: int, dimension: int, seed: int) -> Path:
    """An embedding file, made by another process: what that takes in memory is not counted here."""
    folder.mkdir()
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(write_gallery, folder, rows, dimension, seed).result()


class Sgemm:
    """NumPy's matrix product of two tiles, into memory that is there already."""

    def __init__(self, tile: NDArray[np.float32]) -> None:
        self._left, self._right = tile, tile.copy()  # of one array twice NumPy computes but half
        self._out = np.empty((len(tile), len(tile)), np.float32)

    def flops(self) -> float:
        """Operations a second, once."""
        start = time.perf_counter()
        np.matmul(self._left, self._right.T, out=self._out)
        return 2 * self._out.size * self._left.shape[1] / (time.perf_counter() - start)


def pairs_flops(gallery: EmbeddingFile) -> tuple[float, int]:
    """Operations a second of all pairs of a file, and how many pairs were found."""
    start = time.perf_counter()
    found = sum(map(len, pairs_above(gallery, _THRESHOLD)))
    return gallery.rows * (gallery.rows - 1) * gallery.dimension / (time.perf_counter() - start), found


def command(path: Path) -> tuple[float, int, str]:
    """`facemill pairs`: seconds, the largest memory in bytes, and what it printed."""
    arguments = ["pairs", path, "--threshold", _THRESHOLD, "-o", path.with_name("pairs.csv"), "--device", "cpu"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"facemill pairs failed: {status}")
    return time.perf_counter() - start, 1024 * usage.ru_maxrss, said


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gemm, pairs = [], []
        with EmbeddingFile(make(folder / "small", given.rows, given.dimension, given.seed)) as gallery:
            sgemm = Sgemm(gallery.block(0, min(TILE_ROWS, given.rows)))
            sgemm.flops()
            for _ in range(given.rounds):
                before = sgemm.flops()
                rate, found = pairs_flops(gallery)
                gemm.append((before + sgemm.flops()) / 2)
                pairs.append(rate)
        path = make(folder / "large", given.large, given.dimension, given.seed)
        around = [sgemm.flops()]
        seconds, memory, said = command(path)
        around.append(sgemm.flops())
    ratios = [mine / its for mine, its in zip(pairs, gemm, strict=True)]
    large = given.large * (given.large - 1) * given.dimension / seconds
    write_results(
        "pairs",
        f"All pairs of {given.dimension} columns, beside the machine's own single-precision matrix product",
        [
            {
                "rows": given.rows,
                "pairs GFLOP/s": statistics.median(pairs) / 1e9,
                "sgemm GFLOP/s": statistics.median(gemm) / 1e9,
                "ratio": statistics.median(ratios),
                "s": given.rows * (given.rows - 1) * given.dimension / statistics.median(pairs),
                "largest memory MB": "",
            },
            {
                "rows": given.large,
                "pairs GFLOP/s": large / 1e9,
                "sgemm GFLOP/s": statistics.mean(around) / 1e9,
                "ratio": large / statistics.mean(around),
                "s": seconds,
                "largest memory MB": round(memory / 1e6),
            },
        ],
        [
            f"{given.rows:,} rows: medians of {given.rounds} rounds, each with a matrix product before and after; "
            f"{found:,} pairs at {_THRESHOLD}; ratios from {min(ratios):.2f} to {max(ratios):.2f}",
            f"{given.large:,} rows: the whole command once, with its start and its CSV; it said: "
            f"{'; '.join(line for line in said.splitlines() if not line.startswith('/'))}",
            f"sgemm: NumPy, two tiles of {min(TILE_ROWS, given.rows):,} rows; load of the machine at the end: "
            f"{os.getloadavg()[0]:.1f}",
        ],
        details={"pairs": pairs, "sgemm": gemm, "around": around},
    )


if __name__ == "__main__":
    main()
