"""Measure the speed and the resources of this machine in a few seconds, for `facemill plan`."""

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
from ..fetch import sha256_of
from ..modelspec import ModelSpec
from ..modelstore import find_weights
from ..pipeline.settings import usable_cores
from ..pipeline.tuning import measure_rate
from ..search.embedder import MANY_PHOTOS, PhotoEmbedder, QueryRules
from .plan import Machine, Rate

_PHOTO_TEST_S = 3.0
_PHOTOS_PER_CALL = 16
_DETECTOR_SIDE = 160  # pixels of a detector's first view
_PRODUCT_TEST_S = 0.5
_READ_TEST_BYTES = 128 << 20  # more than any cache
_NETWORK_FLOP = 0.45e9  # of a MobileFaceNet per face (arXiv:1804.07573: 221 million multiply-adds)
_SHARE_OF_PEAK = 0.5  # of the FLOP/s of matrix products that small convolutions reach; measured: 0.47 to 0.57


def find_engine(spec: ModelSpec) -> Engine | None:
    """Find a built engine of a model that runs on this machine, of the fastest backend; None if none is built."""
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


def measure_photo_rate(rules: QueryRules, photos: Sequence[bytes], seed: int = 0) -> Rate:
    """Measure the rate of all stages on all cores, on a random sample of photos.

    Args:
        rules: engines and face rules for embedding.
        photos: paths.
        seed: random seed of the sample.
    Raises:
        EngineError: an engine does not run here.
    """
    order = np.random.default_rng(seed).permutation(len(photos))
    sample = [os.fsdecode(photos[i]) for i in order[:4096]]
    calls = itertools.count()

    def embed(_: int) -> int:
        start = next(calls) * _PHOTOS_PER_CALL % len(sample)
        batch = sample[start : start + _PHOTOS_PER_CALL]
        embedder.embed(batch, total=MANY_PHOTOS)
        return len(batch)

    with PhotoEmbedder(rules) as embedder:
        embedder.load(threads=1)
        per_s = measure_rate(embed, usable_cores(), _PHOTO_TEST_S, time.perf_counter)
    return Rate(per_s, "measured", f"{per_s:,.0f} photos/s, on a sample drawn at random")


def measure_engine_rate(engine: Engine, finders: Sequence[Engine]) -> Rate:
    """Measure the rate of the engines alone, one after the other, without photos.

    Raises:
        EngineError: an engine does not run here.
    """
    seconds = 0.0
    for each in (engine, *finders):
        (rate,) = measure_rates([each], _DETECTOR_SIDE if each.info.detects else each.info.size)
        seconds += 1 / rate
    subject = "engines that detect and embed" if finders else "engine"
    return Rate(
        1 / seconds,
        "measured",
        f"{1 / seconds:,.0f} faces/s by the {subject} alone, without reading and decoding. Name PHOTOS to measure all",
    )


def guess_rate(flops: float, model: str) -> Rate:
    """Guess the rate without an engine, as if the network were a MobileFaceNet."""
    per_s = flops * _SHARE_OF_PEAK / _NETWORK_FLOP
    return Rate(
        per_s,
        "guess",
        f"{per_s:,.0f} faces/s if the network is a MobileFaceNet; the true rate may be three times lower or higher. To "
        f"measure it: facemill build-engine --model {model}",
    )


def measure_flops(dimension: int) -> float:
    """Measure the FLOP/s of single-precision matrix products of two blocks of 2048 embeddings."""
    left = np.random.default_rng(0).standard_normal((2048, dimension), np.float32)  # (2048, D)
    out = np.empty((2048, 2048), np.float32)
    return 2.0 * 2048 * 2048 * dimension * _calls_per_s(lambda: np.matmul(left, left.T, out=out))


def measure_read_bytes_s(dimension: int) -> float:
    """Measure the bytes of rows per second that one query is compared with, in memory."""
    rows = np.ones((max(1, _READ_TEST_BYTES // (4 * dimension)), dimension), np.float32)  # (n, D)
    query = np.ones(dimension, np.float32)
    return rows.nbytes * _calls_per_s(lambda: rows @ query)


def _calls_per_s(work: Callable[[], object]) -> float:
    """Measure how often a function runs per second, after one warm-up call."""
    work()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _PRODUCT_TEST_S:
        work()
        count += 1
    return count / elapsed


def available_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that programs can still use, within a container too. File caches count as free.

    Args:
        group: control group of the container.
    """
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available = int(facts["MemAvailable"].split()[0]) << 10
    try:
        limit, current = (
            (group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        parts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        used = int(current) - int(parts["active_file"]) - int(parts["inactive_file"])
    except (OSError, ValueError, KeyError):
        return available
    return min(available, max(0, int(limit) - used)) if limit.isdecimal() else available


def probe_gpu() -> tuple[int | None, str]:
    """Return the free memory of the first GPU in bytes, and its name; None and the reason if it is unknown."""
    gpu = find_gpu()
    if gpu is None:
        return None, "this machine has no GPU; set the memory of another with --gpu-memory GB"
    try:
        driver = open_driver("auto", 0)
        with driver:
            return driver.memory()[0], gpu.name
    except FacemillError as err:
        return None, f"{gpu.name}: {err.message}; set its memory with --gpu-memory GB"


def probe_machine(
    folder: Path, dimension: int, rate: Callable[[float], Rate], gpu_bytes: int | None, gpu: str
) -> Machine:
    """Measure this machine.

    Args:
        folder: folder of the future embedding file.
        dimension: numbers per embedding, D.
        rate: returns the rate of embedding, given the machine's FLOP/s.
        gpu_bytes, gpu: see Machine.
    """
    flops = measure_flops(dimension)
    free, read_bytes_s = shutil.disk_usage(folder).free, measure_read_bytes_s(dimension)
    return Machine(rate(flops), free, available_memory(), read_bytes_s, flops, gpu_bytes, gpu)
