#!/usr/bin/env python3
"""Approximate indexes beside exact search: bytes, time to make, recall, time of one query, memory.

    python benchmarks/search_index.py
    python benchmarks/search_index.py --rows 5000000 --data nation.h5

The rows are generated (benchmarks/nation.py: clusters and spread as real embeddings have them) into an embedding file,
which --data keeps and takes again. Half of the queries are new photographs of people in the file (0.6 alike), half of
people who are not. The oracle is a blockwise matrix product in double precision. Each figure of a search is of a fresh
process; exact search and the indexes take turns, round by round. Results are written as they come.
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

from nation import BLOCK, strangers, write_nation
from report import write_results

from runtime.index.codesfile import codes_path
from runtime.index.indexfile import index_path
from runtime.index.open import open_index
from runtime.index.sidecar import read_card, sidecar_path
from runtime.storage.file import EmbeddingFile

_QUERIES, _TIMED = 200, 20
_ALIKE = 0.6


def make_queries(path: Path, seed: int) -> NDArray[np.float32]:
    """(_QUERIES, D) unit rows that are not in the file."""
    with EmbeddingFile(path) as gallery:
        rows, dimension = gallery.rows, gallery.dimension
        known = next(gallery.blocks())[:: max(1, BLOCK // _QUERIES)][: _QUERIES // 2]
    unknown = strangers(_QUERIES, rows, dimension, seed)
    new = _ALIKE * known + (1 - _ALIKE**2) ** 0.5 * unknown[: len(known)]
    found = np.concatenate([new, unknown[len(known) :]])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def numpy_floors(path: Path, queries: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """(q,) the k-th best score of each query, in double precision."""
    wide = queries.astype(np.float64)
    best = np.full((len(queries), k), -np.inf)
    with EmbeddingFile(path) as gallery:
        for block in gallery.blocks():
            scores = np.concatenate([best, wide @ block.T.astype(np.float64)], axis=1)
            best = np.partition(scores, -k, axis=1)[:, -k:]
    return best.min(axis=1)


def child_build(path: Path, kind: str, k: int) -> dict[str, object]:
    """Make an index, from nothing."""
    target = index_path(path) if kind == "flat" else codes_path(path, kind)
    for old in (target, sidecar_path(target)):
        old.unlink(missing_ok=True)
    start = time.perf_counter()
    with EmbeddingFile(path) as gallery, open_index(gallery, "cpu", k=k, queries=1, index=kind):
        wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "bytes": target.stat().st_size, "build_s": read_card(target).get("build_s", wall_s)}


def child_search(path: Path, kind: str, k: int, seed: int, answers: str) -> dict[str, object]:
    """Open an index and ask it one query at a time; with a name for the answers, then all queries at once."""
    queries = make_queries(path, seed)
    start = time.perf_counter()
    with EmbeddingFile(path) as gallery, open_index(gallery, "cpu", k=k, queries=1, index=kind) as index:
        open_s = time.perf_counter() - start
        times = []
        for query in queries[:: _QUERIES // _TIMED]:
            start = time.perf_counter()
            index.search(query[None], k)
            times.append(1000 * (time.perf_counter() - start))
        found: dict[str, object] = {"open_ms": 1000 * open_s, "first_ms": times[0], "ms": statistics.median(times[1:])}
        found |= {"facts": str(index.facts), "index": index.facts.as_dict()}
        if answers:
            start = time.perf_counter()
            np.save(answers, index.search(queries, k)[1])
            found["batch_ms"] = 1000 * (time.perf_counter() - start) / len(queries)
    return found


def measured(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What a piece of work says, with the most memory that this process took, and what of that was its own."""
    own_kb, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            own_kb[0] = max(own_kb[0], memory_kb("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = work()
    finally:
        done.set()
        watcher.join()
    return {**found, "peak_mb": memory_kb("VmHWM") / 1000, "own_mb": own_kb[0] / 1000}


def memory_kb(name: str) -> int:
    """A line of /proc/self/status; getrusage would tell of the process that started this one."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) if found else 0


def in_child(
    given: argparse.Namespace, path: Path, job: str, kind: str, answers: Path | None = None
) -> dict[str, object]:
    """Do a job in a fresh process."""
    names = ["--data", str(path), "-k", str(given.k), "--seed", str(given.seed), "--job", job, kind]
    told = [*names, str(answers or "")]
    done = subprocess.run([sys.executable, __file__, *told], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(
    given: argparse.Namespace, built: dict[str, dict], rounds: dict[str, list[dict]], recall: dict[str, float]
) -> None:
    """Write what is known so far."""
    table = []
    for kind, made in built.items():
        searched = rounds.get(kind, [])
        row: dict[str, object] = {"index": kind, "MB": made["bytes"] / 1e6, "build s": made["build_s"]}
        row |= {"build and measure s": made["wall_s"], "build peak MB (own)": memory([made])}
        row[f"recall@{given.k}"] = f"{recall[kind]:.4f}" if kind in recall else "-"
        one = [line["ms"] for line in searched]
        row |= {"one query ms": statistics.median(one) if one else "-", "quickest round ms": min(one) if one else "-"}
        row[f"{_QUERIES} at once, ms each"] = next((at["all"]["batch_ms"] for at in searched if "all" in at), "-")
        row["open ms"] = statistics.median(line["open_ms"] for line in searched) if searched else "-"
        row["search peak MB (own)"] = memory(searched)
        table.append(row)
    facts = [f"{lines[-1]['facts']} (as its file says)" for kind, lines in rounds.items() if kind != "flat" and lines]
    write_results(
        f"search_index_{given.rows}_{given.dimension}",
        f"Indexes of {given.rows:,} x {given.dimension} generated rows, the {given.k} best",
        table,
        [
            *facts,
            f"Recall: share of NumPy's {given.k} best (double precision) that were found, for {_QUERIES} queries that "
            "are not in the file; all scores are exact",
            f"One query: median of {given.rounds} rounds, each the median of {_TIMED - 1} queries in a fresh process, "
            "the indexes taking turns; the files are in the page cache",
            "Peak MB: all pages, those of mapped files among them, which the system takes back where memory is short; "
            "own: without these. The build's includes measuring exact search, which maps all rows",
            f"Load of the machine at the end: {os.getloadavg()[0]:.1f}",
        ],
        details={"built": built, "rounds": rounds},
        quiet=len(recall) < len(rounds),
    )


def memory(lines: list[dict]) -> str:
    """The most of several processes."""
    if not lines:
        return "-"
    return f"{max(line['peak_mb'] for line in lines):,.0f} ({max(line['own_mb'] for line in lines):,.0f})"


def main() -> None:
    """Make the file and the indexes, search, compare, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="ivf,sq8", help="approximate indexes to measure: ivf, sq8")
    parser.add_argument("--data", type=Path, help="keep the generated file here, with its indexes, and use it again")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job, kind, answers = given.job
        work = {
            "build": lambda: child_build(given.data, kind, given.k),
            "search": lambda: child_search(given.data, kind, given.k, given.seed, answers),
        }[job]
        print(json.dumps(measured(work)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = given.data or Path(folder) / "nation.h5"
        if not path.exists():
            start = time.perf_counter()
            write_nation(path, given.rows, given.dimension, given.seed)
            print(f"generated in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        with EmbeddingFile(path) as gallery:
            if gallery.metadata["run_id"] != f"nation-{given.rows}-{given.dimension}-{given.seed}":
                raise SystemExit(f"{path} holds other rows: {gallery.metadata['run_id']}")
        compare(given, path, Path(folder))


def compare(given: argparse.Namespace, path: Path, folder: Path) -> None:
    """Build each index, then search them in turns."""
    kinds = ["flat", *given.kinds.split(",")]
    built: dict[str, dict] = {}
    rounds: dict[str, list[dict]] = {kind: [] for kind in kinds}
    recall: dict[str, float] = {}
    for kind in kinds:
        built[kind] = in_child(given, path, "build", kind)
        print(f"{kind}: {built[kind]}", file=sys.stderr, flush=True)
        report(given, built, rounds, recall)
    floors = numpy_floors(path, make_queries(path, given.seed), given.k)
    for number in range(given.rounds + 1):
        for kind in kinds:
            answers = folder / f"{kind}.npy" if number == given.rounds else None
            found = in_child(given, path, "search", kind, answers)
            if answers is None:
                rounds[kind].append(found)
            else:
                rounds[kind][-1]["all"] = found
                good = (np.load(answers) >= floors[:, None] - 1e-7).sum(axis=1)
                recall[kind] = float(np.minimum(good, given.k).mean() / given.k)
        report(given, built, rounds, recall)
    if recall["flat"] != 1:
        raise SystemExit("exact search is not NumPy's")


if __name__ == "__main__":
    main()
