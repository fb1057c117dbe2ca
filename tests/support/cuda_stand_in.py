"""A CUDA driver on the CPU that is as late as CUDA may be: work runs only when something waits for it.

The kernels are compiled by g++ against cuda_stand_in.h. It notices what a GPU would let pass, or punish by wrong rows:
work that two streams may do in any order on the same memory, memory that is freed or not allocated when work uses it,
calls without a current driver, unknown streams, times of unfinished events. Copies read page-locked memory when they
run. Freed memory is poisoned.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from runtime.cuda.driver import Device

HEADER = Path(__file__).with_name("cuda_stand_in.h")
ALIGNMENT = 256  # bytes, of device memory
_GRAVES = 1 << 28  # bytes of freed memory that are kept, so that a late reader sees poison


class Misuse(AssertionError):
    """What CUDA forbids, or lets pass with wrong results."""


@dataclass(frozen=True, slots=True)
class Access:
    """Work number `number` of a stream uses the bytes from `start` to `end` on the device."""

    stream: LateStream
    number: int
    start: int
    end: int
    writes: bool
    what: str


class LateStream:
    """Work in order, none of which has run before something waits for it.

    Attributes:
        own: the memory of its driver.
        asked, done: how many pieces of work were asked for, and have run.
    """

    def __init__(self, own: Memory) -> None:
        self.own = own
        self._work: deque[Callable[[], None]] = deque()
        self.asked = self.done = 0

    def add(self, work: Callable[[], None], *spans: tuple[int, int, str, bool]) -> None:
        """Ask for work that uses spans of device memory: address, bytes, what it is, whether it writes."""
        with self.own.lock:
            for address, nbytes, what, writes in spans:
                self.own.use(self, address, nbytes, what, writes=writes)
            self._work.append(work)
            self.asked += 1

    def run(self, until: int) -> None:
        """Do the work up to a number."""
        while self.done < until:
            work = self._work.popleft()
            self.done += 1
            work()


@dataclass(slots=True)
class Mark:
    """An event.

    Attributes:
        stream, number: the work after which it happens; None before it is recorded.
        time: when it happened.
    """

    stream: LateStream | None = None
    number: int = 0
    time: float = 0.0


@dataclass
class Memory:
    """The memory of one stand-in, and who uses it.

    Attributes:
        live, pinned: bytes of each allocation on the device and of page-locked memory, by address.
        used: accesses that nothing has waited for.
        misuses: what was noticed where nothing could be raised.
    """

    live: dict[int, int] = field(default_factory=dict)
    pinned: dict[int, int] = field(default_factory=dict)
    used: list[Access] = field(default_factory=list)
    misuses: list[str] = field(default_factory=list)
    graves: deque[Any] = field(default_factory=deque)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def allocate(self, table: dict[int, int], nbytes: int, fill: int) -> NDArray[np.uint8]:
        """Aligned memory that is poisoned when the last view of it is dropped."""
        buffer = (ctypes.c_ubyte * (nbytes + ALIGNMENT))()
        shift = -ctypes.addressof(buffer) % ALIGNMENT
        # An array of its own, which lives as long as any view of it.
        memory = np.frombuffer((ctypes.c_ubyte * nbytes).from_buffer(buffer, shift), np.uint8)
        memory[:] = fill
        with self.lock:
            table[memory.ctypes.data] = nbytes
        weakref.finalize(memory, self._free, table, memory.ctypes.data, buffer).atexit = False
        return memory

    def _free(self, table: dict[int, int], address: int, buffer: Any) -> None:
        with self.lock:
            nbytes = table.pop(address)
            for access in self.used:
                if access.start < address + nbytes and address < access.end:
                    self.misuses.append(f"memory is freed that unfinished work uses: {access.what}")
            ctypes.memset(address, 0xDD, nbytes)
            self.graves.append(buffer)
            while len(self.graves) > 1 and sum(map(len, self.graves)) > _GRAVES:
                self.graves.popleft()

    def inside(self, table: dict[int, int], address: int, nbytes: int) -> bool:
        """Whether bytes are allocated."""
        with self.lock:
            return any(start <= address and address + nbytes <= start + size for start, size in table.items())

    def need(self, table: dict[int, int], address: int, nbytes: int, what: str) -> None:
        """Check that bytes are allocated now."""
        if not self.inside(table, address, nbytes):
            raise Misuse(f"{what}: {nbytes} bytes at {address:#x} are not allocated when the work runs")

    def use(self, stream: LateStream, address: int, nbytes: int, what: str, *, writes: bool) -> None:
        """Note that the next work of a stream uses bytes, and check that no other stream may do so at the same time."""
        access = Access(stream, stream.asked + 1, address, address + nbytes, writes, what)
        with self.lock:
            for other in self.used:
                overlaps = other.start < access.end and access.start < other.end
                if overlaps and other.stream is not stream and (other.writes or writes):
                    raise Misuse(f"{what} and {other.what} use the same memory in two streams in any order")
            self.used.append(access)

    def wait(self, stream: LateStream, number: int) -> None:
        """Do the work of a stream up to a number, which the host waits for."""
        with self.lock:
            self.used = [a for a in self.used if a.stream is not stream or a.number > number]
            stream.run(number)


class ShimDriver:
    """A runtime.cuda.driver.Driver whose device is the CPU.

    Attributes:
        own: its memory.
    """

    name = "shim"
    device = Device(0, "g++", "SM00")
    streams: ClassVar[weakref.WeakValueDictionary[int, LateStream]] = weakref.WeakValueDictionary()  # of all drivers

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.own = Memory()
        self._current = threading.local()

    def check(self) -> None:
        """Raise what was noticed where nothing could be raised."""
        if self.own.misuses:
            raise Misuse(self.own.misuses[0])

    def _begin(self, what: str) -> None:
        if not getattr(self._current, "depth", 0):
            raise Misuse(f"{what}: no driver is current on this thread")

    def memory(self) -> tuple[int, int]:
        return (1 << 33) - sum(self.own.live.copy().values()), 1 << 34

    def allocate(self, nbytes: int) -> Any:
        self._begin("allocating")
        return self.own.allocate(self.own.live, nbytes, 0xA5)  # no code may rely on zeros

    def address(self, memory: Any) -> int:
        return int(memory.ctypes.data)

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        self._begin("allocating page-locked memory")
        return self.own.allocate(self.own.pinned, nbytes, 0x5A)

    def new_stream(self) -> Any:
        self._begin("making a stream")
        stream = LateStream(self.own)
        self.streams[id(stream)] = stream
        return stream

    def stream_address(self, stream: Any) -> int:
        return id(stream)

    def synchronize(self, stream: Any) -> None:
        self._begin("waiting for a stream")
        self.own.wait(stream, stream.asked)

    def upload(self, memory: Any, offset: int, host: NDArray[np.uint8], stream: Any) -> None:
        self._begin("upload")
        own, target, nbytes = self.own, memory.ctypes.data + offset, len(host)
        pinned = own.inside(own.pinned, host.ctypes.data, nbytes)
        kept = host if pinned else host.copy()  # CUDA stages other memory before it returns
        source = kept.ctypes.data
        kept_alive = None if pinned else kept

        def work(_: Any = kept_alive) -> None:
            if pinned:
                own.need(own.pinned, source, nbytes, "upload from page-locked memory")
            own.need(own.live, target, nbytes, "upload")
            ctypes.memmove(target, source, nbytes)

        stream.add(work, (target, nbytes, "an upload", True))

    def download(self, host: NDArray[np.uint8], memory: Any, offset: int, stream: Any) -> None:
        self._begin("download")
        own, source, nbytes, target = self.own, memory.ctypes.data + offset, len(host), host.ctypes.data
        pinned = own.inside(own.pinned, target, nbytes)

        def work() -> None:
            own.need(own.live, source, nbytes, "download")
            if pinned:
                own.need(own.pinned, target, nbytes, "download to page-locked memory")
            ctypes.memmove(target, source, nbytes)

        stream.add(work, (source, nbytes, "a download", False))
        if not pinned:
            own.wait(stream, stream.asked)

    def copy(self, memory: Any, offset: int, address: int, nbytes: int, stream: Any) -> None:
        self._begin("copy")
        own, target = self.own, memory.ctypes.data + offset

        def work() -> None:
            own.need(own.live, target, nbytes, "copy")
            ctypes.memmove(target, address, nbytes)

        stream.add(work, (target, nbytes, "a copy", True), (address, nbytes, "a copy", False))

    def new_event(self, *, timing: bool) -> Any:
        self._begin("making an event")
        return Mark()

    def record(self, event: Any, stream: Any) -> None:
        self._begin("recording an event")

        def work() -> None:
            event.time = time.perf_counter()

        stream.add(work)
        event.stream, event.number = stream, stream.asked

    def synchronize_event(self, event: Any) -> None:
        self._begin("waiting for an event")
        if event.stream is not None:
            self.own.wait(event.stream, event.number)

    def elapsed_s(self, start: Any, stop: Any) -> float:
        for event in (start, stop):
            if event.stream is None or event.stream.done < event.number:
                raise Misuse("the time between events that have not happened")
        return float(stop.time - start.time)

    def compile(self, source: str, name: str) -> Any:
        text, library = self._folder / f"{name}.cpp", self._folder / f"{name}.so"
        if not library.exists():
            entries = re.findall(r'extern "C" __global__ void (\w+)', source)
            text.write_text(source + "".join(f"EXPORT({entry})\n" for entry in entries), encoding="utf-8")
            flags = ["-std=c++20", "-O1", "-Wall", "-Wno-unknown-pragmas", "-Werror", "-fPIC", "-shared", "-pthread"]
            subprocess.run(["g++", *flags, "-include", str(HEADER), str(text), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))

    def function(self, module: Any, entry: str) -> Any:
        return ctypes.c_void_p.in_dll(module, f"run_{entry}").value

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: Sequence[np.number[Any]], stream: Any
    ) -> None:
        self._begin("launching a kernel")
        own = self.own
        kinds = [np.ctypeslib.as_ctypes_type(argument.dtype) for argument in arguments]
        run = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint, *kinds)(function)
        values = [argument.item() for argument in arguments]
        addresses = [int(argument) for argument in arguments if argument.dtype == np.uint64]

        def work() -> None:
            for address in addresses:
                own.need(own.live, address, 1, "an argument of a kernel")
            run(blocks, threads, *values)

        # The last buffer is written; kernels read the others. Of each, the whole allocation counts.
        spans = [(*own_span(own, address), "a kernel", address == addresses[-1]) for address in addresses]
        stream.add(work, *spans)

    def __enter__(self) -> ShimDriver:
        self._current.depth = getattr(self._current, "depth", 0) + 1
        return self

    def __exit__(self, *_: object) -> None:
        self._current.depth -= 1


def own_span(own: Memory, address: int) -> tuple[int, int]:
    """Address and bytes of the allocation at an address."""
    with own.lock:
        for start, size in own.live.items():
            if start <= address < start + max(1, size):
                return start, size
    return address, 1


@contextmanager
def checked(driver: ShimDriver) -> Iterator[ShimDriver]:
    """A driver that is current, and whose misuses are raised at the end."""
    with driver:
        yield driver
    driver.check()
