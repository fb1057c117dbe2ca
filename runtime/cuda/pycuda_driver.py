"""CUDA through PyCUDA: needs a CUDA toolkit, whose nvcc compiles the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from .driver import Device, cuda_errors

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA has no name for


class PyCudaDriver:
    """See `Driver`. It retains the primary context; `pycuda.autoinit` would make a context that is not shared."""

    name = "pycuda"

    def __init__(self, device: int) -> None:
        self._cuda = require("pycuda.driver", extra="pycuda", purpose="CUDA streams, memory and kernels")
        with self._errors(f"opening GPU {device}"):
            self._cuda.init()
            gpu = self._cuda.Device(device)
            major, minor = gpu.compute_capability()
            self.device = Device(device, gpu.name(), f"SM{major}{minor}")
            self._context = gpu.retain_primary_context()

    def _errors(self, action: str) -> AbstractContextManager[None]:
        # OSError: nvcc is missing or cannot run.
        return cuda_errors("PyCUDA", action, (self._cuda.Error, OSError))

    def memory(self) -> tuple[int, int]:
        """See `Driver.memory`."""
        with self._errors("asking for the GPU's free memory"):
            free, total = self._cuda.mem_get_info()
        return free, total

    def allocate(self, nbytes: int) -> Any:
        """See `Driver.allocate`."""
        with self._errors(f"allocating {nbytes} bytes on the GPU"):
            return self._cuda.mem_alloc(nbytes)

    def address(self, memory: Any) -> int:
        """See `Driver.address`."""
        return int(memory)

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """See `Driver.allocate_pinned`."""
        with self._errors(f"allocating {nbytes} bytes of page-locked memory"):
            pinned: NDArray[np.uint8] = self._cuda.pagelocked_empty(nbytes, np.uint8)
        return pinned

    def new_stream(self) -> Any:
        """See `Driver.new_stream`."""
        with self._errors("making a stream"):
            return self._cuda.Stream(_NON_BLOCKING)

    def stream_address(self, stream: Any) -> int:
        """See `Driver.stream_address`."""
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        """See `Driver.synchronize`."""
        with self._errors("waiting for a stream"):
            stream.synchronize()

    def upload(self, memory: Any, offset: int, host: NDArray[np.uint8], stream: Any) -> None:
        """See `Driver.upload`."""
        with self._errors(f"copying {len(host)} bytes to the GPU"):
            self._cuda.memcpy_htod_async(int(memory) + offset, host, stream)

    def download(self, host: NDArray[np.uint8], memory: Any, offset: int, stream: Any) -> None:
        """See `Driver.download`."""
        with self._errors(f"copying {len(host)} bytes from the GPU"):
            self._cuda.memcpy_dtoh_async(host, int(memory) + offset, stream)

    def copy(self, memory: Any, offset: int, address: int, nbytes: int, stream: Any) -> None:
        """See `Driver.copy`."""
        with self._errors(f"copying {nbytes} bytes on the GPU"):
            self._cuda.memcpy_dtod_async(int(memory) + offset, address, nbytes, stream)

    def new_event(self, *, timing: bool) -> Any:
        """See `Driver.new_event`."""
        flags = self._cuda.event_flags
        with self._errors("making an event"):
            return self._cuda.Event(int(flags.BLOCKING_SYNC) | (0 if timing else int(flags.DISABLE_TIMING)))

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
            return float(stop.time_since(start)) / 1000

    def compile(self, source: str, name: str) -> Any:
        """See `Driver.compile`. PyCUDA caches compiled kernels for the user."""
        compiler = require("pycuda.compiler", extra="pycuda", purpose="compiling CUDA kernels")
        with self._errors(f"compiling {name}"):
            return compiler.SourceModule(source, options=["--std=c++14"], no_extern_c=True)

    def function(self, module: Any, entry: str) -> Any:
        """See `Driver.function`."""
        with self._errors(f"loading the kernel {entry}"):
            return module.get_function(entry)

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: Sequence[np.number[Any]], stream: Any
    ) -> None:
        """See `Driver.launch`."""
        with self._errors("launching a kernel"):
            # Prepared, because a plain call caches its arguments by value for ever.
            function.prepare([type(argument) for argument in arguments])
            function.prepared_async_call((blocks, 1), (threads, 1, 1), stream, *arguments)

    def __enter__(self) -> PyCudaDriver:
        with self._errors(f"making GPU {self.device.index} current"):
            self._context.push()
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.pop()
