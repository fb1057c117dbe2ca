"""How fast this machine is and what it has, measured in some seconds for `facemill plan`."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..assets import cache_dir
from ..cuda.device import find_gpu
from ..cuda.driver import open_driver
from ..engines.backends import BACKENDS, backend_of
from ..engines.engine import Engine, read_engine
from ..engines.rate import measure_rates
from ..errors import EngineError, FacemillError
from ..modelspec import ModelSpec
from ..modelstore import find_weights, sha256_of
from ..pipeline.settings import usable_cores
from ..pipeline.tuning import measure_rate
from ..search.embedder import MANY_PHOTOS, PhotoEmbedder, QueryRules
from .plan import Machine, Rate

_SECONDS = 3.0  # of photographs
_TOGETHER = 16
_SIDE = 160  # of a detector's first view
_TIMED_S = 0.5  # of products
_ROWS_BYTES = 128 << 20  # more than any cache
_NETWORK_FLOP = 0.45e9  # of a MobileFaceNet for one face (arXiv:1804.07573: 221 million multiply-adds)
_OF_PRODUCTS = 0.5  # of the machine's products a second that its small convolutions reach: 0.47 to 0.57, measured


def find_built(spec: ModelSpec) -> Engine | None:
    """An engine of a model that is built and runs on this machine, of the fastest backend; None where there is none."""
    weights = find_weights(spec)
    sha256 = spec.sha256 if spec.sha256 or weights is None else sha256_of(weights)
    gpu, engines = find_gpu(), []
    for sidecar in sorted(cache_dir("engines").glob("*.json")):
        try:
            engine = read_engine(sidecar.with_suffix(""))
            backend = backend_of(engine.info.backend)
        except EngineError:
            continue
        info = engine.info
        runs = gpu is not None or not backend.on_gpu
        if runs and info.model == spec.name and info.model_sha256 == sha256:
            engines.append((BACKENDS.index(backend), engine))
    return min(engines, key=lambda pair: pair[0])[1] if engines else None


def rate_of_photographs(rules: QueryRules, photographs: Sequence[bytes], seed: int = 0) -> Rate:
    """Measured: some photographs, drawn at random, through all stages on all cores.

    Args:
        rules: how they become vectors.
        photographs: paths.
        seed: of the draw.
    Raises:
        EngineError: an engine does not run here.
    """
    order = np.random.default_rng(seed).permutation(len(photographs))
    drawn = [os.fsdecode(photographs[i]) for i in order[:4096]]
    turns = itertools.count()

    def embed(_: int) -> int:
        start = next(turns) * _TOGETHER % len(drawn)
        photos = drawn[start : start + _TOGETHER]
        embedder.embed(photos, total=MANY_PHOTOS)
        return len(photos)

    with PhotoEmbedder(rules) as embedder:
        embedder.load(threads=1)
        per_s = measure_rate(embed, usable_cores(), _SECONDS, time.perf_counter)
    return Rate(per_s, "measured", f"{per_s:,.0f} photographs/s, drawn at random from yours")


def rate_of_engines(engine: Engine, detector: Engine | None) -> Rate:
    """Measured without photographs: the engines alone, one after the other.

    Raises:
        EngineError: an engine does not run here.
    """
    (embedding,) = measure_rates([engine], engine.info.size)
    seconds = 1 / embedding
    if detector is not None:
        (detecting,) = measure_rates([detector], _SIDE)
        seconds += 1 / detecting
    what = "engine" if detector is None else "engine and detector"
    return Rate(
        1 / seconds,
        "measured",
        f"{1 / seconds:,.0f} faces/s by the {what} alone: reading and decoding come on top. Name PHOTOS to measure all",
    )


def guessed_rate(flops: float, model: str) -> Rate:
    """Without an engine: as if the network were a MobileFaceNet."""
    per_s = flops * _OF_PRODUCTS / _NETWORK_FLOP
    return Rate(
        per_s,
        "guess",
        f"{per_s:,.0f} faces/s if the network is a MobileFaceNet; a third of it, or three times as many, would be no "
        f"surprise. To measure it: facemill build-engine --model {model}",
    )


def products_per_s(dimension: int) -> float:
    """FLOP a second of single-precision matrix products, two blocks of 2048 embeddings at a time."""
    left = np.random.default_rng(0).standard_normal((2048, dimension), np.float32)  # (2048, D)
    out = np.empty((2048, 2048), np.float32)
    return 2.0 * 2048 * 2048 * dimension * _per_s(lambda: np.matmul(left, left.T, out=out))


def read_per_s(dimension: int) -> float:
    """Bytes of rows a second that one query is compared with, from memory."""
    rows = np.ones((max(1, _ROWS_BYTES // (4 * dimension)), dimension), np.float32)  # (n, D)
    query = np.ones(dimension, np.float32)
    return rows.nbytes * _per_s(lambda: rows @ query)


def _per_s(work: Callable[[], object]) -> float:
    """How often something is done in a second."""
    work()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _TIMED_S:
        work()
        count += 1
    return count / elapsed


def memory_available(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that programs can still take, caches of files counted as free; of a container too.

    Args:
        group: the control group of the container.
    """
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    found = int(facts["MemAvailable"].split()[0]) << 10
    try:
        limit, current = (
            (group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        parts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        used = int(current) - int(parts["active_file"]) - int(parts["inactive_file"])
    except (OSError, ValueError, KeyError):
        return found
    return min(found, max(0, int(limit) - used)) if limit.isdecimal() else found


def gpu_here() -> tuple[int | None, str]:
    """Free memory of the first GPU in bytes, and its name; None and why where it cannot be known."""
    gpu = find_gpu()
    if gpu is None:
        return None, "there is no GPU here; name one by its memory with --gpu-memory GB"
    try:
        driver = open_driver("auto", 0)
        with driver:
            return driver.memory()[0], gpu.name
    except FacemillError as err:
        return None, f"{gpu.name}: {err.message}; name its memory with --gpu-memory GB"


def look(folder: Path, dimension: int, rate: Callable[[float], Rate], gpu_bytes: int | None, gpu: str) -> Machine:
    """This machine.

    Args:
        folder: where the embedding file is to be.
        dimension: D.
        rate: of embedding, given the machine's products a second.
        gpu_bytes, gpu: as in Machine.
    """
    flops = products_per_s(dimension)
    return Machine(
        rate(flops), shutil.disk_usage(folder).free, memory_available(), read_per_s(dimension), flops, gpu_bytes, gpu
    )
