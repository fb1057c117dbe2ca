#!/usr/bin/env python3
"""Measure the server beside the library on the same photos: rate, latency of a client alone, time of a refusal.

    python benchmarks/server.py                     # 32 clients, 600 photos, 3 rounds
    python benchmarks/server.py --clients 64 --count 2000 --rounds 5

The clients are processes of their own with one kept connection for each thread. A round measures, in this order: the
library embedding all photos, the server answering all clients, a call of the library for one photo, and one client of
an idle server. Ratios are computed within a round. Refusals are measured on a server with one place in its queue.

With `--peer PYTHON`, InsightFace's `FaceAnalysis` behind FastAPI answers the same clients with the same networks, in
turn with the others, with the view of 640 pixels that its users write; see insightface_server.py. It needs `--model`
and `--detector` of which FACEMILL_MODELS or the cache has the ONNX files, such as mobilefacenet-128 and scrfd-2.5g.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import material
from report import write_results

ROOT = Path(__file__).resolve().parents[1]
ROUTE = "/api/v1/recognition?faces=largest"
ALONE = 200  # requests of one client
PEER_PHOTOS = 200


@contextmanager
def server(*options: str) -> Iterator[int]:
    """Start a server on a free port; yields the port."""
    with server_process(*options) as (_, port):
        yield port


@contextmanager
def server_process(*options: str) -> Iterator[tuple[int, int]]:
    """Start a server on a free port; yields the number of its process, and the port."""
    with listening([sys.executable, "-m", "runtime.cli.app", "serve", "--port", "0", *options]) as started:
        yield started


@contextmanager
def listening(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start a server that prints its address; yields the number of its process, and the port."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            match = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in lines)), None)
            if match is None:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            yield process.pid, int(match[1])
        finally:
            process.terminate()
            process.wait()


@contextmanager
def insightface(python: str, folder: Path, model: str, detector: str) -> Iterator[int]:
    """Start InsightFace's server with the networks of two models; yields the port."""
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights

    local = folder / "insightface" / "models" / "local"
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    for name in (model, detector):
        weights = resolve_weights(load_spec(name))
        (local / weights.name).symlink_to(weights.resolve())
    script = str(Path(__file__).with_name("insightface_server.py"))
    with listening([python, script, str(folder / "insightface")]) as (_, port):
        yield port


def ask(port: int, paths: Sequence[Path]) -> list[tuple[int, float]]:
    """Send photos one after another through one connection; returns the status and the milliseconds of each."""
    results = []
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        for path in paths:
            photo, start_s = path.read_bytes(), time.perf_counter()
            status = send(connection, photo)
            results.append((status, 1000 * (time.perf_counter() - start_s)))
    return results


def send(connection: socket.socket, photo: bytes) -> int:
    """Send a photo, read the answer, and return its status.

    Clients share the cores with the server, so this one does no more than is needed: `http.client` takes 0.5 ms.
    """
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + photo)
    answer = connection.recv(1 << 18)
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += received(connection)
    (length,) = re.findall(rb"(?i)content-length: (\d+)", answer[:end])
    missing = end + 4 + int(length) - len(answer)
    while missing > 0:
        missing -= len(received(connection))
    return int(answer[9:12])


def received(connection: socket.socket) -> bytes:
    """More bytes of an answer."""
    part = connection.recv(1 << 18)
    if not part:
        raise SystemExit("the server closed a connection within an answer")
    return part


def ask_in_threads(port: int, shares: Sequence[Sequence[Path]]) -> list[tuple[int, float]]:
    """`ask` with one thread for each share of the photos."""
    with ThreadPoolExecutor(len(shares)) as pool:
        return [result for results in pool.map(partial(ask, port), shares) for result in results]


def ask_together(port: int, paths: Sequence[Path], clients: int) -> tuple[float, list[float]]:
    """Send photos from many clients at once; returns photos per second and the milliseconds of each answer."""
    shares = [paths[number::clients] for number in range(clients)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(abs, range(2)))  # the processes have started
        start_s = time.perf_counter()
        parts = list(pool.map(partial(ask_in_threads, port), (shares[0::2], shares[1::2])))
        seconds = time.perf_counter() - start_s
    results = [result for part in parts for result in part]
    wrong = [status for status, _ in results if status != 200]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(results)} requests were not answered: status {wrong[0]}")
    return len(results) / seconds, [ms for _, ms in results]


def milliseconds(call: Callable[[bytes], object], photos: Sequence[bytes]) -> list[float]:
    """The time of a call for each photo."""
    times = []
    for photo in photos:
        start_s = time.perf_counter()
        call(photo)
        times.append(1000 * (time.perf_counter() - start_s))
    return times


def refusals_ms(paths: Sequence[Path]) -> list[float]:
    """The milliseconds of the refusals of a server with one place, while clients keep it full."""
    with server("--places", "1") as port:
        shares = [[path] * 40 for path in paths[:16]]
        return [ms for status, ms in ask_in_threads(port, shares) if status == 429]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--count", type=int, default=600, help="number of photos; default: 600")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="", help="embedding model; default: that of facemill")
    parser.add_argument("--detector", default="", help="detector; default: that of facemill")
    parser.add_argument("--peer", help="Python executable of an environment with insightface; default: leave it out")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--dry-run", action="store_true", help="print the figures, and write no table")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    paths = sorted(material.draw_portraits(options.data, options.count, (300, 400)).rglob("*.jpg"))[: options.count]
    alone = [path.read_bytes() for path in paths[:ALONE]]

    import runtime as facemill

    engines = {"model": options.model, "detector": options.detector}
    named = [word for name, value in engines.items() if value for word in (f"--{name}", value)]
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        port = stack.enter_context(server(*named))
        embedder = stack.enter_context(facemill.FaceEmbedder(**{k: v for k, v in engines.items() if v}))
        peer = stack.enter_context(insightface(options.peer, options.data, *engines.values())) if options.peer else 0
        embedder.embed(paths[:2])
        for each in filter(None, (port, peer)):
            ask_together(each, paths[: 4 * options.clients], options.clients)  # the engines are loaded
        for number in range(options.rounds):
            start_s = time.perf_counter()
            embedder.embed(paths)
            library = len(paths) / (time.perf_counter() - start_s)
            rate, times = ask_together(port, paths, options.clients)
            call = statistics.median(milliseconds(lambda photo: embedder.embed_faces(photo, faces="largest"), alone))
            client = statistics.median(ms for _, ms in ask(port, paths[:ALONE]))
            rounds.append(
                {
                    "library_per_s": library,
                    "server_per_s": rate,
                    "rate_ratio": rate / library,
                    "p50_ms": statistics.median(times),
                    "p99_ms": statistics.quantiles(times, n=100)[98],
                    "call_p50_ms": call,
                    "alone_p50_ms": client,
                    "alone_ratio": client / call,
                }
            )
            if peer:
                peer_rate, _ = ask_together(peer, paths[:PEER_PHOTOS], options.clients)
                rounds[-1] |= {"insightface_per_s": peer_rate, "insightface_ratio": rate / peer_rate}
            print(number, json.dumps({name: round(value, 3) for name, value in rounds[-1].items()}), flush=True)
    refused = refusals_ms(paths)
    medians = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    rows: list[dict[str, object]] = [{"figure": name, "median": round(value, 2)} for name, value in medians.items()]
    rows.append({"figure": "refusal_p50_ms", "median": round(statistics.median(refused), 2) if refused else "none"})
    print("\n".join(f"{row['figure']!s:16} {row['median']}" for row in rows))
    if not options.dry_run:
        title = f"The server beside the library: {options.clients} clients, {len(paths)} photos of 300x400"
        write_results("server", title, rows, details={"rounds": rounds, "refusals_ms": refused}, quiet=True)


if __name__ == "__main__":
    main()
