"""Compute what a job takes from the figures of a machine: arithmetic only, no measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import OutOfMemoryError
from ..index.kinds import KINDS, MIN_APPROXIMATE_ROWS, build_s, index_bytes
from ..index.memoryplan import plan_memory
from ..pipeline.disk import disk_bytes_while_running
from ..text import size

Basis = Literal["measured", "computed", "guess"]

# Peak memory of `process`: measured 149 MB at 20,000 photos and 339 MB at 1,000,000 (README.md).
_PROCESS_BYTES, _BYTES_PER_PHOTO = 145_000_000, 194
_PAIRS_BYTES = 2_000_000_000  # memory limit of `pairs`
_MAX_PAIRS_S = 24 * 3600
_WRITE_BYTES_S = 200e6  # of a slow disk
_LATENCY_S = 0.1  # longest exact search of `search --index auto`, unless --latency sets another


@dataclass(frozen=True, slots=True)
class Job:
    """A job to estimate.

    Attributes:
        photographs: number of photos, N.
        dimension: numbers per embedding, D.
        dtype: "float32" or "float16", the dtype of the embedding file.
        faces: whether faces are detected.
        longest: length of the longest path, bytes.
    """

    photographs: int
    dimension: int
    dtype: str = "float32"
    faces: bool = True
    longest: int = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of embedding.

    Attributes:
        per_s: photos per second; None if unknown.
        basis: source of the figure.
        words: explanation, for people.
    """

    per_s: float | None
    basis: Basis
    words: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Figures of a machine.

    Attributes:
        rate: rate of embedding.
        disk_bytes: free space of the output's disk.
        memory_bytes: memory that programs can still use.
        read_bytes_s: bytes of rows per second that one query is compared with, in memory.
        flops: FLOP/s of single-precision matrix products.
        gpu_bytes: free memory of a GPU; None without one.
        gpu: name of the GPU, or source of its memory.
    """

    rate: Rate
    disk_bytes: int
    memory_bytes: int
    read_bytes_s: float
    flops: float
    gpu_bytes: int | None = None
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One figure of an estimate.

    Attributes:
        section: "embedding", "index", "search", "pairs" or "gpu".
        name: name of the figure, unique in its section.
        value: amount; None if unknown.
        unit: "s" or "bytes".
        basis: source of the figure.
        words: explanation, for people.
        problem: what does not fit or takes long, and the remedy; empty for none.
    """

    section: str
    name: str
    value: float | None
    unit: Literal["s", "bytes"]
    basis: Basis
    words: str = ""
    problem: str = ""

    def amount(self) -> str:
        """Format the value for people."""
        if self.value is None:
            return "unknown"
        return size(self.value) if self.unit == "bytes" else format_duration(self.value)


def plan_job(job: Job, machine: Machine) -> list[Item]:
    """Return all figures of a job, in the order of its steps."""
    return [item for section in (_embedding, _index, _search, _pairs, _gpu) for item in section(job, machine)]


def items_to_dict(items: list[Item]) -> dict[str, dict[str, Any]]:
    """Return items by section and name, as JSON-ready data."""
    sections: dict[str, dict[str, Any]] = {}
    for item in items:
        facts = asdict(item)
        sections.setdefault(facts.pop("section"), {})[facts.pop("name")] = facts
    return sections


def file_bytes(job: Job) -> int:
    """Return the size of the finished embedding file."""
    return _running_bytes(job) // 2


def _running_bytes(job: Job) -> int:
    return disk_bytes_while_running(job.photographs, job.dimension, job.dtype, faces=job.faces, longest=job.longest)


def _embedding(job: Job, machine: Machine) -> Iterator[Item]:
    rate, free = machine.rate, machine.disk_bytes
    time_s = None if not rate.per_s else job.photographs / rate.per_s
    yield Item("embedding", "time", time_s, "s", rate.basis, rate.words)
    running, after = _running_bytes(job), file_bytes(job)
    halve = ", or halve it with --dtype float16" if job.dtype == "float32" else ""
    problem = _shortage(running, free, "free on the disk", f"Free some space, or name another disk with -o{halve}")
    yield Item("embedding", "disk while it runs", running, "bytes", "computed", f"{size(free)} free", problem)
    yield Item("embedding", "disk afterwards", after, "bytes", "computed", "the embedding file")
    memory = _PROCESS_BYTES + _BYTES_PER_PHOTO * job.photographs
    problem = _shortage(memory, machine.memory_bytes, "of memory available", "Split the photos into several files")
    words = "from measurements at 20,000 and 1,000,000 photos"
    yield Item("embedding", "memory", memory, "bytes", "computed", words, problem)


def _index(job: Job, machine: Machine) -> Iterator[Item]:
    left = max(0, machine.disk_bytes - file_bytes(job))
    exact = index_bytes("flat", job.photographs, job.dimension)
    for kind in KINDS:
        amount = index_bytes(kind, job.photographs, job.dimension)
        disk_bytes = amount if kind == "flat" else exact + amount
        disk = _shortage(disk_bytes, left, "free on the disk beside the embedding file", "Free some space")
        advice = "Searches would read the disk. Use another index, or a smaller --dimension"
        memory = _shortage(amount, machine.memory_bytes, "of memory available", advice)
        words = "on disk, and in memory for speed" if kind == "flat" else "at most, in memory; on disk beside flat"
        yield Item("index", kind, amount, "bytes", "computed", words, disk or memory)
        time_s = build_s(kind, job.photographs, job.dimension, flops=machine.flops, write_bytes_s=_WRITE_BYTES_S)
        words = "if the disk writes 200 MB/s" if kind == "flat" else "before its recall is measured"
        yield Item("index", f"{kind}, making it", time_s, "s", "guess", words)


def _search(job: Job, machine: Machine) -> Iterator[Item]:
    amount = index_bytes("flat", job.photographs, job.dimension)
    fits = amount <= machine.memory_bytes
    time_s = amount / machine.read_bytes_s
    words = f"one query at {machine.read_bytes_s / 1e9:.1f} GB/s" + ("" if fits else ", if the rows were in memory")
    is_exact = job.photographs < MIN_APPROXIMATE_ROWS or time_s <= _LATENCY_S
    choice = "exact search" if is_exact else "ivf, a few milliseconds per query"
    yield Item("search", "exact", time_s, "s", "measured", f"{words}; --index auto uses {choice}")


def _pairs(job: Job, machine: Machine) -> Iterator[Item]:
    flops = float(job.photographs) ** 2 * job.dimension  # N^2 / 2 products of 2 D
    time_s = flops / machine.flops
    words = f"at least, at {machine.flops / 1e9:,.0f} GFLOP/s of matrix products"
    advice = "too long for a night. Limit the time with --budget, which finds nearly all pairs, or compare on a GPU"
    yield Item("pairs", "time", time_s, "s", "measured", words, advice if time_s > _MAX_PAIRS_S else "")
    problem = _shortage(_PAIRS_BYTES, machine.memory_bytes, "of memory available", "Close other programs")
    yield Item("pairs", "memory", _PAIRS_BYTES, "bytes", "computed", "at most", problem)


def _gpu(job: Job, machine: Machine) -> Iterator[Item]:
    if machine.gpu_bytes is None:
        return
    free = machine.gpu_bytes
    try:
        plan = plan_memory(job.photographs, job.dimension, free, k=min(50, max(1, job.photographs)), queries=256)
    except OutOfMemoryError as err:
        yield Item("gpu", "search memory", None, "bytes", "computed", machine.gpu, err.message)
        return
    yield Item("gpu", "search memory", plan.device_bytes, "bytes", "computed", f"{machine.gpu}: {plan}")


def _shortage(needed: int, available: int, where: str, advice: str) -> str:
    """Say what does not fit; empty if it fits."""
    if needed <= available:
        return ""
    return f"does not fit: {size(needed)} needed, {size(available)} {where}. {advice}"


def format_duration(seconds: float) -> str:
    """Format a time for people, to about two digits: `2.5 ms`, `45 s`, `3 h 05 min`, `12 days`."""
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{1000 * seconds:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{round(seconds / 86_400):,} days"
