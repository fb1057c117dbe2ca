#!/usr/bin/env python3
"""Load the server: many requests at once, clients that hang up, the memory of 100,000 requests, a million rows.

    python benchmarks/server_load.py same               # 10,000 requests from 64 connections, then half of them hang up
    python benchmarks/server_load.py memory             # 100,000 requests of mixed sizes
    python benchmarks/server_load.py search             # a photo against 1,000,000 x 512, and the requests at 70 % load
    python benchmarks/server_load.py same --count 500 --dry-run

Every photo differs from all others. `same` sends each of them alone first, and compares every later answer with that
one, byte by byte. `memory` reads the resident memory of the server after each tenth of the requests.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import cv2
import material
import numpy as np
from nation import write_nation
from report import write_results
from server import ROUTE, server, server_process
from threads import time_threads

SIZES = ((112, 112), (150, 200), (300, 400), (600, 800))  # width, height; most requests of `memory` are small
WEIGHTS = (60, 30, 9, 1)  # how often each size comes, of a hundred
SEARCH_ROWS, DIMENSION = 1_000_000, 512


class Photos:
    """An endless number of different photos, made from a few drawn portraits. Threads may share it.

    A photo is portrait `number % len(portraits)`, darker by up to a third in a step of its own for each turn.
    """

    def __init__(self, folder: Path, size: tuple[int, int], portraits: int = 200) -> None:
        paths = sorted(material.draw_portraits(folder, portraits, size).rglob("*.jpg"))
        self._images = [cv2.imread(str(path)) for path in paths]

    def __getitem__(self, number: int) -> bytes:
        turn, which = divmod(number, len(self._images))
        darker = np.clip(self._images[which].astype(np.float32) * (1 - turn / 300), 0, 255).astype(np.uint8)
        return bytes(cv2.imencode(".jpg", darker, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def ask(connection: http.client.HTTPConnection, photo: bytes, route: str = ROUTE) -> tuple[int, bytes]:
    """Send a photo; returns the status and the body."""
    connection.request("POST", route, photo, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    return response.status, response.read()


def in_threads(work: Callable[[int], None], threads: int) -> float:
    """Call work(number) in a thread for each number; returns the seconds."""
    return time_threads(threads, lambda _, number: work(number), range(threads))


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection to the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        yield connection
    finally:
        connection.close()


def digest(status: int, body: bytes) -> bytes:
    """What an answer is compared by: status and body."""
    return hashlib.sha256(b"%d " % status + body).digest()


def measure_same(options: argparse.Namespace) -> list[dict[str, object]]:
    """Compare answers to many requests at once with the answer to the same photo alone."""
    photos = Photos(options.data, (150, 200))
    total, clients = options.count or 10_000, options.clients
    with server("--places", str(2 * clients)) as port:
        with connected(port) as connection:
            start_s = time.perf_counter()
            expected = [digest(*ask(connection, photos[number])) for number in range(total)]
            alone_s = time.perf_counter() - start_s
        answered = [0] * clients
        different, refused = [0] * clients, [0] * clients

        def client(number: int, hangs_up: bool) -> None:
            with connected(port) as connection:
                for photo in range(number, total, clients):
                    if hangs_up:
                        connection.request("POST", ROUTE, photos[photo], {"Content-Type": "image/jpeg"})
                        if photo % 3:
                            time.sleep(0.005 * (photo % 7))
                        connection.close()
                        continue
                    status, body = ask(connection, photos[photo])
                    while status == 429:  # as the server asks for; those who hang up do not wait
                        refused[number] += 1
                        time.sleep(0.05)
                        status, body = ask(connection, photos[photo])
                    answered[number] += 1
                    different[number] += digest(status, body) != expected[photo]

        together_s = in_threads(partial(client, hangs_up=False), clients)
        rows: list[dict[str, object]] = [
            {
                "requests": "alone",
                "sent": total,
                "answered": total,
                "refused first": 0,
                "different": 0,
                "seconds": round(alone_s, 1),
            },
            {
                "requests": f"from {clients} connections",
                "sent": total,
                "answered": sum(answered),
                "refused first": sum(refused),
                "different": sum(different),
                "seconds": round(together_s, 1),
            },
        ]
        answered[:], different[:], refused[:] = [0] * clients, [0] * clients, [0] * clients
        half_s = in_threads(lambda number: client(number, hangs_up=number % 2 == 1), clients)
        rows.append(
            {
                "requests": f"from {clients} connections, every second one hangs up",
                "sent": total,
                "answered": sum(answered),
                "refused first": sum(refused),
                "different": sum(different),
                "seconds": round(half_s, 1),
            }
        )
    return rows


def measure_memory(options: argparse.Namespace) -> list[dict[str, object]]:
    """Read the resident memory of the server after each tenth of many requests of mixed sizes."""
    by_size = [Photos(options.data, size, 20) for size in SIZES]
    order = np.random.default_rng(0).choice(len(SIZES), options.count or 100_000, p=np.array(WEIGHTS) / sum(WEIGHTS))
    rows: list[dict[str, object]] = []
    with server_process() as (process, port):
        numbers, lock = count(), threading.Lock()

        def client(_number: int) -> None:
            with connected(port) as connection:
                while True:
                    with lock:
                        number = next(numbers)
                    if number >= len(order):
                        return
                    status, body = ask(connection, by_size[order[number]][number % 5_000])
                    if status != 200:
                        raise SystemExit(f"request {number} was not answered: {status} {body[:200]!r}")
                    if (number + 1) % (len(order) // 10) == 0:
                        with lock:
                            rows.append({"requests": number + 1, "resident_mb": round(resident_mb(process), 1)})

        in_threads(client, options.clients)
    first = float(str(rows[0]["resident_mb"]))
    for row in rows:
        row["to_first"] = round(float(str(row["resident_mb"])) / first, 3)
    return rows


def resident_mb(process: int) -> float:
    """Resident memory of a process without mapped files, MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    match = re.search(r"RssAnon:\s+(\d+)", status)
    assert match is not None
    return int(match[1]) / 1000


def measure_search(options: argparse.Namespace) -> list[dict[str, object]]:
    """Time searches of photos in a large file: one client, and clients that come at 70 % of the highest rate."""
    file = options.data / f"nation-{SEARCH_ROWS}.h5"
    if not file.exists():
        import runtime as facemill

        people = material.draw_portraits(options.data, 20, (300, 400))
        facemill.process(people, options.data / "people.h5", model="facemill-512", detector="facemill-det", force=True)
        with facemill.EmbeddingFile(options.data / "people.h5") as like:
            write_nation(file, SEARCH_ROWS, DIMENSION, 0, json.loads(like.contract.to_json()))
    photos, total = Photos(options.data, (300, 400)), options.count or 1_000
    route = "/api/v1/search?k=10"
    rows: list[dict[str, object]] = []
    with server(str(file), "--latency", str(options.latency)) as port:
        with connected(port) as connection:
            for number in range(20):
                ask(connection, photos[number], route)
            times = [timed(connection, photos[number], route) for number in range(total)]
        rows.append({"load": "one client", **quantiles(times)})
        busy: list[float] = []

        def client(number: int) -> None:
            with connected(port) as connection:
                busy.extend(timed(connection, photos[photo], route) for photo in range(number, total, 8))

        rate = total / in_threads(client, 8)
        rows.append({"load": f"8 clients without a pause: {rate:.1f} per second", **quantiles(busy)})
        late: list[float] = []
        begin_s, gap_s = time.perf_counter(), 1 / (0.7 * rate)

        def timely(number: int) -> None:
            with connected(port) as connection:
                for photo in range(number, total, 16):
                    due_s = begin_s + photo * gap_s
                    time.sleep(max(0.0, due_s - time.perf_counter()))
                    ask(connection, photos[photo], route)
                    late.append(1000 * (time.perf_counter() - due_s))

        in_threads(timely, 16)
        rows.append({"load": f"70 % of it: {0.7 * rate:.1f} per second", **quantiles(late)})
    return rows


def timed(connection: http.client.HTTPConnection, photo: bytes, route: str) -> float:
    """Milliseconds of one request."""
    start_s = time.perf_counter()
    status, body = ask(connection, photo, route)
    if status != 200:
        raise SystemExit(f"a request was not answered: {status} {body[:200]!r}")
    return 1000 * (time.perf_counter() - start_s)


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of milliseconds."""
    return {"p50_ms": round(statistics.median(times), 1), "p99_ms": round(statistics.quantiles(times, n=100)[98], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("same", "memory", "search"))
    parser.add_argument("--count", type=int, help="number of requests")
    parser.add_argument("--clients", type=int, default=64, help="connections; default: 64")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--latency", type=float, default=10, help="milliseconds of a search, for `search`; default: 10")
    parser.add_argument("--dry-run", action="store_true", help="print the figures, and write no table")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    measures = {"same": measure_same, "memory": measure_memory, "search": measure_search}
    titles = {
        "same": f"The server under {options.clients} connections: every answer beside that of the photo alone",
        "memory": f"The memory of the server, {options.clients} connections, photos of 112x112 to 600x800",
        "search": f"A photo of 300x400 searched for in {SEARCH_ROWS:,} x {DIMENSION} through the server",
    }
    rows = measures[options.step](options)
    for row in rows:
        print(row)
    if not options.dry_run:
        write_results(f"server_{options.step}", titles[options.step], rows, quiet=True)


if __name__ == "__main__":
    main()
