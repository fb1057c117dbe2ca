#!/usr/bin/env python3
"""Compare approximate indexes with exact search: size, build time, recall, time of one query, memory.

    python benchmarks/search_index.py
    python benchmarks/search_index.py --rows 5000000 --data nation.h5

benchmarks/nation.py generates an embedding file with the clusters and spread of real embeddings; --data keeps and
reuses it. Half of the queries are new photos of people in the file (score 0.6), half are of other people. The oracle is
a blockwise matrix product in double precision. Each search runs in a fresh process; exact search and the indexes
alternate, round by round. Results are written as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nation import BLOCK, make_strangers, write_nation
from report import write_results

from runtime.index.codesfile import codes_path
from runtime.index.indexfile import index_path
from runtime.index.open import open_index
from runtime.index.sidecar import read_card, sidecar_path
from runtime.storage.file import EmbeddingFile

_QUERIES, _TIMED_QUERIES = 200, 20
_SCORE_SAME_PERSON = 0.6


def make_queries(path: Path, seed: int) -> NDArray[np.float32]:
    """(_QUERIES, D) unit rows that are not in the file."""
    with EmbeddingFile(path) as file:
        rows, dimension = file.rows, file.dimension
        known_rows = next(file.blocks())[:: max(1, BLOCK // _QUERIES)][: _QUERIES // 2]
    unknown = make_strangers(_QUERIES, rows, dimension, seed)
    new = _SCORE_SAME_PERSON * known_rows + (1 - _SCORE_SAME_PERSON**2) ** 0.5 * unknown[: len(known_rows)]
    rows_of_queries = np.concatenate([new, unknown[len(known_rows) :]])
    return np.asarray(rows_of_queries / np.linalg.norm(rows_of_queries, axis=1, keepdims=True), np.float32)


def numpy_floors(path: Path, queries: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """(q,) the k-th best score of each query, in double precision."""
    queries64 = queries.astype(np.float64)
    best = np.full((len(queries), k), -np.inf)
    with EmbeddingFile(path) as file:
        for block in file.blocks():
            scores = np.concatenate([best, queries64 @ block.T.astype(np.float64)], axis=1)
            best = np.partition(scores, -k, axis=1)[:, -k:]
    return best.min(axis=1)


def child_build(path: Path, kind: str, k: int) -> dict[str, object]:
    """Build an index from scratch."""
    target = index_path(path) if kind == "flat" else codes_path(path, kind)
    for old in (target, sidecar_path(target)):
        old.unlink(missing_ok=True)
    start = time.perf_counter()
    with EmbeddingFile(path) as file, open_index(file, "cpu", k=k, queries=1, index=kind):
        wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "bytes": target.stat().st_size, "build_s": read_card(target).get("build_s", wall_s)}


def child_search(path: Path, kind: str, k: int, seed: int, answers: str) -> dict[str, object]:
    """Open an index and time single queries; if `answers` is a path, time all queries at once and save the scores."""
    queries = make_queries(path, seed)
    start = time.perf_counter()
    with EmbeddingFile(path) as file, open_index(file, "cpu", k=k, queries=1, index=kind) as index:
        open_s = time.perf_counter() - start
        times = []
        for query in queries[:: _QUERIES // _TIMED_QUERIES]:
            start = time.perf_counter()
            index.search(query[None], k)
            times.append(1000 * (time.perf_counter() - start))
        figures: dict[str, object] = {
            "open_ms": 1000 * open_s,
            "first_ms": times[0],
            "ms": statistics.median(times[1:]),
        }
        figures |= {"facts": str(index.facts), "index": index.facts.as_dict()}
        if answers:
            start = time.perf_counter()
            np.save(answers, index.search(queries, k)[1])
            figures["batch_ms"] = 1000 * (time.perf_counter() - start) / len(queries)
    return figures


def measure_memory(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Run `work`; adds the peak memory of this process to its result, with and without mapped files."""
    own_kb, finished = [0], threading.Event()

    def watch() -> None:
        while not finished.wait(0.05):
            own_kb[0] = max(own_kb[0], memory_kb("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        figures = work()
    finally:
        finished.set()
        watcher.join()
    return {**figures, "peak_mb": memory_kb("VmHWM") / 1000, "own_mb": own_kb[0] / 1000}


def memory_kb(name: str) -> int:
    """Read a line of /proc/self/status; getrusage would report the parent's memory."""
    line = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(line[1]) if line else 0


def run_child(
    options: argparse.Namespace, path: Path, job: str, kind: str, answers: Path | None = None
) -> dict[str, object]:
    """Run a job in a fresh process."""
    names = ["--data", str(path), "-k", str(options.k), "--seed", str(options.seed), "--job", job, kind]
    arguments = [*names, str(answers or "")]
    result = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return figures


def report(
    options: argparse.Namespace, built: dict[str, dict], rounds: dict[str, list[dict]], recall: dict[str, float]
) -> None:
    """Write the results so far."""
    table = []
    for kind, build in built.items():
        searched = rounds.get(kind, [])
        row: dict[str, object] = {"index": kind, "MB": build["bytes"] / 1e6, "build s": build["build_s"]}
        row |= {"build and measure s": build["wall_s"], "build peak MB (own)": format_memory([build])}
        row[f"recall@{options.k}"] = f"{recall[kind]:.4f}" if kind in recall else "-"
        single_ms = [line["ms"] for line in searched]
        row |= {"one query ms": statistics.median(single_ms) if single_ms else "-"}
        row |= {"quickest round ms": min(single_ms) if single_ms else "-"}
        row[f"{_QUERIES} at once, ms each"] = next((at["all"]["batch_ms"] for at in searched if "all" in at), "-")
        row["open ms"] = statistics.median(line["open_ms"] for line in searched) if searched else "-"
        row["search peak MB (own)"] = format_memory(searched)
        table.append(row)
    facts = [f"{lines[-1]['facts']} (as its file says)" for kind, lines in rounds.items() if kind != "flat" and lines]
    write_results(
        f"search_index_{options.rows}_{options.dimension}",
        f"Indexes of {options.rows:,} x {options.dimension} generated rows, the {options.k} best",
        table,
        [
            *facts,
            f"Recall: share of NumPy's {options.k} best (double precision) that were found, for {_QUERIES} queries "
            "that are not in the file; all scores are exact",
            f"One query: median of {options.rounds} rounds, each the median of {_TIMED_QUERIES - 1} queries in a fresh "
            "process; the indexes alternate, and the files are in the page cache",
            "Peak MB: all pages, including mapped files, which the system can reclaim; own: without mapped files. The "
            "build's peak includes measuring exact search, which maps all rows",
            f"Machine load at the end: {os.getloadavg()[0]:.1f}",
        ],
        details={"built": built, "rounds": rounds},
        quiet=len(recall) < len(rounds),
    )


def format_memory(lines: list[dict]) -> str:
    """Peak memory of several processes."""
    if not lines:
        return "-"
    return f"{max(line['peak_mb'] for line in lines):,.0f} ({max(line['own_mb'] for line in lines):,.0f})"


def main() -> None:
    """Generate the file, build the indexes, search, compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="ivf,sq8", help="approximate indexes, separated by commas; default: ivf,sq8")
    parser.add_argument("--data", type=Path, help="path at which to keep and reuse the generated file and its indexes")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job, kind, answers = options.job
        work = {
            "build": lambda: child_build(options.data, kind, options.k),
            "search": lambda: child_search(options.data, kind, options.k, options.seed, answers),
        }[job]
        print(json.dumps(measure_memory(work)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or Path(folder) / "nation.h5"
        if not path.exists():
            start = time.perf_counter()
            write_nation(path, options.rows, options.dimension, options.seed)
            print(f"generated in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        with EmbeddingFile(path) as file:
            expected = f"nation-{options.rows}-{options.dimension}-{options.seed}"
            if file.metadata["run_id"] != expected:
                raise SystemExit(f"{path} holds {file.metadata['run_id']}; expected: {expected}. Use another --data")
        compare(options, path, Path(folder))


def compare(options: argparse.Namespace, path: Path, folder: Path) -> None:
    """Build each index, then search them in turns."""
    kinds = ["flat", *options.kinds.split(",")]
    built: dict[str, dict] = {}
    rounds: dict[str, list[dict]] = {kind: [] for kind in kinds}
    recall: dict[str, float] = {}
    for kind in kinds:
        built[kind] = run_child(options, path, "build", kind)
        print(f"{kind}: {built[kind]}", file=sys.stderr, flush=True)
        report(options, built, rounds, recall)
    floors = numpy_floors(path, make_queries(path, options.seed), options.k)
    for number in range(options.rounds + 1):
        for kind in kinds:
            answers = folder / f"{kind}.npy" if number == options.rounds else None
            figures = run_child(options, path, "search", kind, answers)
            if answers is None:
                rounds[kind].append(figures)
            else:
                rounds[kind][-1]["all"] = figures
                hits = (np.load(answers) >= floors[:, None] - 1e-7).sum(axis=1)
                recall[kind] = float(np.minimum(hits, options.k).mean() / options.k)
        report(options, built, rounds, recall)
    if recall["flat"] != 1:
        raise SystemExit("the answers of exact search differ from NumPy's")


if __name__ == "__main__":
    main()
