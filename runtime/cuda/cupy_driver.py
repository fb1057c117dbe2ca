"""CUDA through CuPy: wheels only, kernels compiled by NVRTC. The default."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from .driver import Device, cuda_errors


class CupyDriver:
    """See `Driver`. CuPy's runtime calls work on the primary context of the thread's current device."""

    name = "cupy"

    def __init__(self, device: int) -> None:
        self._cupy = require("cupy", extra="gpu", purpose="CUDA streams, memory and kernels")
        self._runtime = self._cupy.cuda.runtime
        with self._errors(f"opening GPU {device}"):
            properties = self._runtime.getDeviceProperties(device)
        self.device = Device(device, properties["name"].decode(), f"SM{properties['major']}{properties['minor']}")
        self._before = threading.local()

    def _errors(self, action: str) -> AbstractContextManager[None]:
        # CuPy raises several RuntimeErrors, and OSErrors if a CUDA library does not load.
        compile_error = self._cupy.cuda.compiler.CompileException
        return cuda_errors("CuPy", action, (RuntimeError, MemoryError, OSError, compile_error))

    def memory(self) -> tuple[int, int]:
        """See `Driver.memory`."""
        with self._errors("asking for the GPU's free memory"):
            free, total = self._runtime.memGetInfo()
        return free, total

    def allocate(self, nbytes: int) -> Any:
        """Allocate from CUDA directly, because a memory plan does not know what CuPy's pool keeps."""
        with self._errors(f"allocating {nbytes} bytes on the GPU"):
            return self._cupy.cuda.Memory(nbytes)

    def address(self, memory: Any) -> int:
        """See `Driver.address`."""
        return int(memory.ptr)

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """See `Driver.allocate_pinned`."""
        with self._errors(f"allocating {nbytes} bytes of page-locked memory"):
            pinned = self._cupy.cuda.PinnedMemoryPointer(self._cupy.cuda.PinnedMemory(nbytes), 0)
        return np.frombuffer(pinned, np.uint8, nbytes)

    def new_stream(self) -> Any:
        """See `Driver.new_stream`."""
        with self._errors("making a stream"):
            return self._cupy.cuda.Stream(non_blocking=True)

    def stream_address(self, stream: Any) -> int:
        """See `Driver.stream_address`."""
        return int(stream.ptr)

    def synchronize(self, stream: Any) -> None:
        """See `Driver.synchronize`."""
        with self._errors("waiting for a stream"):
            stream.synchronize()

    def upload(self, memory: Any, offset: int, host: NDArray[np.uint8], stream: Any) -> None:
        """See `Driver.upload`."""
        with self._errors(f"copying {len(host)} bytes to the GPU"):
            kind = self._runtime.memcpyHostToDevice
            self._runtime.memcpyAsync(memory.ptr + offset, host.ctypes.data, len(host), kind, stream.ptr)

    def download(self, host: NDArray[np.uint8], memory: Any, offset: int, stream: Any) -> None:
        """See `Driver.download`."""
        with self._errors(f"copying {len(host)} bytes from the GPU"):
            kind = self._runtime.memcpyDeviceToHost
            self._runtime.memcpyAsync(host.ctypes.data, memory.ptr + offset, len(host), kind, stream.ptr)

    def copy(self, memory: Any, offset: int, address: int, nbytes: int, stream: Any) -> None:
        """See `Driver.copy`."""
        with self._errors(f"copying {nbytes} bytes on the GPU"):
            kind = self._runtime.memcpyDeviceToDevice
            self._runtime.memcpyAsync(memory.ptr + offset, address, nbytes, kind, stream.ptr)

    def new_event(self, *, timing: bool) -> Any:
        """See `Driver.new_event`."""
        with self._errors("making an event"):
            return self._cupy.cuda.Event(block=True, disable_timing=not timing)

    def record(self, event: Any, stream: Any) -> None:
        """See `Driver.record`."""
        with self._errors("recording an event"):
            event.record(stream)

    def synchronize_event(self, event: Any) -> None:
        """See `Driver.synchronize_event`."""
        with self._errors("waiting for an event"):
            event.synchronize()

    def elapsed_s(self, start: Any, stop: Any) -> float:
        """See `Driver.elapsed_s`."""
        with self._errors("asking for the time between two events"):
            return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1000

    def compile(self, source: str, name: str) -> Any:
        """See `Driver.compile`. CuPy caches compiled kernels for the user."""
        with self._errors(f"compiling {name}"):
            module = self._cupy.RawModule(code=source, options=("--std=c++14",))
            module.compile()
        return module

    def function(self, module: Any, entry: str) -> Any:
        """See `Driver.function`."""
        with self._errors(f"loading the kernel {entry}"):
            return module.get_function(entry)

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: Sequence[np.number[Any]], stream: Any
    ) -> None:
        """See `Driver.launch`."""
        with self._errors("launching a kernel"), stream:  # CuPy launches on the thread's current stream
            function((blocks,), (threads,), tuple(arguments))

    def __enter__(self) -> CupyDriver:
        with self._errors(f"making GPU {self.device.index} current"):
            before = self._runtime.getDevice()
            self._runtime.setDevice(self.device.index)
        self._before.devices = [*getattr(self._before, "devices", []), before]
        return self

    def __exit__(self, *exc: object) -> None:
        self._runtime.setDevice(self._before.devices.pop())
