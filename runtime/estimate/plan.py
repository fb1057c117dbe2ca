"""What a job will take, from facts of the machine: pure arithmetic, without looking at anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import OutOfMemoryError
from ..index.kinds import KINDS, MIN_APPROXIMATE_ROWS, build_s, index_bytes
from ..index.memoryplan import plan_memory
from ..pipeline.plan import room_while_running
from ..text import size

Basis = Literal["measured", "computed", "guess"]

# Peak memory of `process`: 149 MB and 339 MB were measured at 20,000 and 1,000,000 photographs (README.md).
_PROCESS_BYTES, _PHOTOGRAPH_BYTES = 145_000_000, 194
_PAIRS_BYTES = 2_000_000_000  # what `pairs` keeps to
_LONG_S = 24 * 3600
_WRITE_BYTES_S = 200e6  # of a disk of no great speed
_LATENCY_S = 0.1  # that `search --index auto` wants of exact search, unless --latency says otherwise


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Attributes:
        photographs: N.
        dimension: D.
        dtype: "float32" or "float16", of the embedding file.
        faces: whether they are looked for.
        longest: bytes of the longest path.
    """

    photographs: int
    dimension: int
    dtype: str = "float32"
    faces: bool = True
    longest: int = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """Photographs a second.

    Attributes:
        per_s: how many; None where nobody knows.
        basis: how they are known.
        words: of what, for a person.
    """

    per_s: float | None
    basis: Basis
    words: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is.

    Attributes:
        rate: of embedding.
        disk_bytes: free, where the file is to be.
        memory_bytes: that programs can still take.
        read_bytes_s: bytes of rows a second that one query is compared with, in memory.
        flops: a second, of single-precision matrix products.
        gpu_bytes: free memory of a GPU; None without one.
        gpu: its name, or where its memory was named.
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
    """One thing that a job takes.

    Attributes:
        section: "embedding", "index", "search", "pairs" or "gpu".
        name: what, unique in its section.
        value: how much; None where nobody knows.
        unit: "s" or "bytes".
        basis: how it is known.
        words: what else there is to know, for a person.
        problem: what does not fit, or takes long, and what to do; empty where all is well.
    """

    section: str
    name: str
    value: float | None
    unit: Literal["s", "bytes"]
    basis: Basis
    words: str = ""
    problem: str = ""

    def amount(self) -> str:
        """The value for a person."""
        if self.value is None:
            return "unknown"
        return size(self.value) if self.unit == "bytes" else roughly(self.value)


def plan_job(job: Job, machine: Machine) -> list[Item]:
    """All that a job takes, in the order in which it is taken."""
    return [*_embedding(job, machine), *_index(job, machine), *_search(job, machine), *_pairs(job, machine),
            *_gpu(job, machine)]  # fmt: skip


def items_json(items: list[Item]) -> dict[str, dict[str, Any]]:
    """Items by section and name."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        facts = asdict(item)
        found.setdefault(facts.pop("section"), {})[facts.pop("name")] = facts
    return found


def file_bytes(job: Job) -> int:
    """The finished embedding file."""
    return _room(job) // 2


def _room(job: Job) -> int:
    return room_while_running(job.photographs, job.dimension, job.dtype, faces=job.faces, longest=job.longest)


def _embedding(job: Job, machine: Machine) -> Iterator[Item]:
    rate, free = machine.rate, machine.disk_bytes
    time_s = None if not rate.per_s else job.photographs / rate.per_s
    yield Item("embedding", "time", time_s, "s", rate.basis, rate.words)
    running, after = _room(job), file_bytes(job)
    halve = ", or halve it with --dtype float16" if job.dtype == "float32" else ""
    problem = _short(running, free, "free on the disk", f"Make room, or name another place with -o{halve}")
    yield Item("embedding", "disk while it runs", running, "bytes", "computed", f"{size(free)} free", problem)
    yield Item("embedding", "disk afterwards", after, "bytes", "computed", "the embedding file")
    memory = _PROCESS_BYTES + _PHOTOGRAPH_BYTES * job.photographs
    problem = _short(memory, machine.memory_bytes, "of memory available", "Split the photographs into several files")
    words = "from what was measured at 20,000 and 1,000,000 photographs"
    yield Item("embedding", "memory", memory, "bytes", "computed", words, problem)


def _index(job: Job, machine: Machine) -> Iterator[Item]:
    left = max(0, machine.disk_bytes - file_bytes(job))
    exact = index_bytes("flat", job.photographs, job.dimension)
    for kind in KINDS:
        amount = index_bytes(kind, job.photographs, job.dimension)
        lying = amount if kind == "flat" else exact + amount
        disk = _short(lying, left, "free on the disk beside the embedding file", "Make room")
        advice = "Searches would read the disk. Take another kind, or a smaller --dimension"
        memory = _short(amount, machine.memory_bytes, "of memory available", advice)
        words = "on disk, and in memory to be fast" if kind == "flat" else "in memory at most; on disk beside flat"
        yield Item("index", kind, amount, "bytes", "computed", words, disk or memory)
        time_s = build_s(kind, job.photographs, job.dimension, flops=machine.flops, write_bytes_s=_WRITE_BYTES_S)
        words = "if the disk writes 200 MB/s" if kind == "flat" else "and then what it finds is measured"
        yield Item("index", f"{kind}, making it", time_s, "s", "guess", words)


def _search(job: Job, machine: Machine) -> Iterator[Item]:
    amount = index_bytes("flat", job.photographs, job.dimension)
    fits = amount <= machine.memory_bytes
    time_s = amount / machine.read_bytes_s
    words = f"one query at {machine.read_bytes_s / 1e9:.1f} GB/s" + ("" if fits else ", if the rows were in memory")
    taken = (
        "exact search"
        if job.photographs < MIN_APPROXIMATE_ROWS or time_s <= _LATENCY_S
        else "ivf, some milliseconds a query"
    )
    yield Item("search", "exact", time_s, "s", "measured", f"{words}; --index auto takes {taken}")


def _pairs(job: Job, machine: Machine) -> Iterator[Item]:
    flops = float(job.photographs) ** 2 * job.dimension  # N^2 / 2 products of 2 D
    time_s = flops / machine.flops
    words = f"at least, at {machine.flops / 1e9:,.0f} GFLOP/s of matrix products"
    long = "too long for a night. Settle for nearly all pairs with a --budget, or compare on a GPU"
    yield Item("pairs", "time", time_s, "s", "measured", words, long if time_s > _LONG_S else "")
    problem = _short(_PAIRS_BYTES, machine.memory_bytes, "of memory available", "Close other programs")
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


def _short(needed: int, there: int, where: str, advice: str) -> str:
    """What does not fit, in words; empty where it does."""
    if needed <= there:
        return ""
    return f"does not fit: {size(needed)} needed, {size(there)} {where}. {advice}"


def roughly(seconds: float) -> str:
    """A time for a person, to two figures or so: `2.5 ms`, `45 s`, `3 h 05 min`, `12 days`."""
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
