"""A driver that runs the kernels on the CPU, compiled by g++ against cuda_stand_in.h. Calls are synchronous."""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.cuda.driver import Device

HEADER = Path(__file__).with_name("cuda_stand_in.h")


class ShimDriver:
    """A runtime.cuda.driver.Driver whose device is the CPU."""

    name = "shim"
    device = Device(0, "g++", "SM00")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, int] = {}  # bytes of each allocation, by its number
        self._numbers = itertools.count()
        self._launching = threading.Lock()  # the blocks of one kernel share blockDim

    def memory(self) -> tuple[int, int]:
        return (1 << 33) - sum(self._held.copy().values()), 1 << 34

    def allocate(self, nbytes: int) -> Any:
        memory = np.full(nbytes, 0xA5, np.uint8)  # no code may rely on zeros
        number = next(self._numbers)
        self._held[number] = nbytes
        weakref.finalize(memory, self._held.pop, number)
        return memory

    def address(self, memory: Any) -> int:
        return int(memory.ctypes.data)

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return np.full(nbytes, 0x5A, np.uint8)

    def new_stream(self) -> Any:
        return object()

    def stream_address(self, stream: Any) -> int:
        return id(stream)

    def synchronize(self, stream: Any) -> None:
        pass

    def upload(self, memory: Any, offset: int, host: NDArray[np.uint8], stream: Any) -> None:
        memory[offset : offset + len(host)] = host

    def download(self, host: NDArray[np.uint8], memory: Any, offset: int, stream: Any) -> None:
        host[:] = memory[offset : offset + len(host)]

    def copy(self, memory: Any, offset: int, address: int, nbytes: int, stream: Any) -> None:
        ctypes.memmove(self.address(memory) + offset, address, nbytes)

    def new_event(self, *, timing: bool) -> Any:
        return [0.0]

    def record(self, event: Any, stream: Any) -> None:
        event[0] = time.perf_counter()

    def synchronize_event(self, event: Any) -> None:
        pass

    def elapsed_s(self, start: Any, stop: Any) -> float:
        return float(stop[0] - start[0])

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
        kinds = [np.ctypeslib.as_ctypes_type(argument.dtype) for argument in arguments]
        run = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint, *kinds)(function)
        with self._launching:
            run(blocks, threads, *(argument.item() for argument in arguments))

    def __enter__(self) -> ShimDriver:
        return self

    def __exit__(self, *_: object) -> None:
        pass
