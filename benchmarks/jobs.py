#!/usr/bin/env python3
"""Measure what the page of a running job costs: the rate of the job with the page open, beside that without.

    python benchmarks/jobs.py                        # 12 pairs of 20 s
    python benchmarks/jobs.py --pairs 30 --seconds 30

One job runs. The page *Jobs* of headless Chromium is closed and open in turns, each for a window, and the order changes
from pair to pair. A ratio compares the two windows of a pair. The processor time of
the browser is measured too, which holds also on a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import material
from report import write_results
from server import server

COPIES = 100  # hard links of each portrait: the job must not end before the measurement


def ask(port: int, path: str, body: Any = None) -> Any:
    """Send a request and return the JSON of its answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


@contextmanager
def page(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Open a page in headless Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no browser; run: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
    with subprocess.Popen([browser, *options, url], stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            time.sleep(5)  # its start is not the page
            yield process
        finally:
            process.terminate()


def processor_s(group: int) -> float:
    """Processor time of all processes of a session, seconds."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def window(port: int, job: str, seconds: float) -> float:
    """Photos per second of a job in a window of time."""
    before, start_s = ask(port, f"/jobs/{job}")["progress"], time.perf_counter()
    time.sleep(seconds)
    after = ask(port, f"/jobs/{job}")
    if after["state"] != "running":
        raise SystemExit(f"the job is {after['state']}; expected: one that runs. Set more --copies")
    return (after["progress"]["done"] - before["done"]) / (time.perf_counter() - start_s)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a window")
    parser.add_argument("--copies", type=int, default=COPIES)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--dry-run", action="store_true", help="write no results file")
    options = parser.parse_args()
    portraits = material.draw_portraits(options.data, 1000, (300, 400))
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        for copy in range(options.copies):
            shutil.copytree(portraits, folder / "photos" / f"{copy:03}", copy_function=os.link)
        (folder / "files").mkdir()
        audit = str(folder / "audit.jsonl")
        with server("--photos", str(folder), "--output", str(folder / "files"), "--audit", audit) as port:
            measure(port, folder, options)


def measure(port: int, folder: Path, options: argparse.Namespace) -> None:
    """Measure pairs of windows, and write the results."""
    job = ask(port, "/jobs", {"photos": ["photos"], "output": "people"})["id"]
    url, ratios, shares = f"http://127.0.0.1:{port}/jobs?id={job}", [], []
    try:
        while not (ask(port, f"/jobs/{job}")["progress"] or {}).get("done"):
            time.sleep(1)
        time.sleep(10)  # the rate rises after the warm-up
        for pair in range(options.pairs):
            rates = {}
            for is_open in (False, True) if pair % 2 else (True, False):
                with page(url, folder) if is_open else nullcontext() as browser:
                    before = processor_s(browser.pid) if browser else 0.0
                    rates[is_open] = window(port, job, options.seconds)
                    if browser:
                        shares.append((processor_s(browser.pid) - before) / options.seconds)
            ratios.append(rates[True] / rates[False])
            print(f"pair {pair + 1}: {rates[False]:.1f} images/s, with the page {rates[True]:.1f}", file=sys.stderr)
    finally:
        ask(port, f"/jobs/{job}/cancel", {})
        while ask(port, f"/jobs/{job}")["state"] == "stopping":
            time.sleep(0.5)
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    row = {
        "rate with the page / without": round(statistics.mean(ratios), 4),
        "standard error": round(error, 4),
        "cores of the browser": round(statistics.mean(shares), 4),
        "pairs": len(ratios),
    }
    print(json.dumps(row))
    if not options.dry_run:
        write_results("jobs", "A job with its page open, beside the same job without", [row], quiet=True)


if __name__ == "__main__":
    main()
