"""The Protocol of a CUDA package. `resources` builds context managers on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, EngineError, OutOfMemoryError
from ..extras import available


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU.

    Attributes:
        index: number in CUDA, which counts the GPUs of CUDA_VISIBLE_DEVICES.
        name: e.g. "NVIDIA GeForce RTX 2060".
        compute_capability: e.g. "SM75".
    """

    index: int
    name: str
    compute_capability: str


class Driver(Protocol):
    """A GPU, used through one package, on its primary context, which DALI, TensorRT, CuPy and FAISS use too.

    `with driver:` makes it current on the calling thread, as each thread must before it uses the driver. Handles are
    objects of the package; dropping one frees its resource. Failures raise EngineError or OutOfMemoryError with the
    package's message.

    Attributes:
        name: "cupy" or "pycuda".
        device: the GPU.
    """

    name: str
    device: Device

    def memory(self) -> tuple[int, int]:
        """Free and total memory of the device, bytes."""
        ...

    def allocate(self, nbytes: int) -> Any:
        """Allocate device memory, not zeroed."""
        ...

    def address(self, memory: Any) -> int:
        """The address of device memory."""
        ...

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate (nbytes,) uint8 of page-locked host memory, freed with its last view."""
        ...

    def new_stream(self) -> Any:
        """Make a stream that does not wait for the default stream."""
        ...

    def stream_address(self, stream: Any) -> int:
        """The cudaStream_t, for packages that take it as a number."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Wait until all work of a stream is done."""
        ...

    def upload(self, memory: Any, offset: int, host: NDArray[np.uint8], stream: Any) -> None:
        """Copy (n,) bytes to device memory, `offset` bytes in."""
        ...

    def download(self, host: NDArray[np.uint8], memory: Any, offset: int, stream: Any) -> None:
        """Copy (n,) bytes from device memory, `offset` bytes in."""
        ...

    def copy(self, memory: Any, offset: int, address: int, nbytes: int, stream: Any) -> None:
        """Copy bytes from anywhere on the device to device memory, `offset` bytes in."""
        ...

    def new_event(self, *, timing: bool) -> Any:
        """Make an event whose waiting thread sleeps. Time stamps cost a little."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Mark the current end of a stream."""
        ...

    def synchronize_event(self, event: Any) -> None:
        """Wait until the marked work is done."""
        ...

    def elapsed_s(self, start: Any, stop: Any) -> float:
        """Seconds between two completed events with time stamps."""
        ...

    def compile(self, source: str, name: str) -> Any:
        """Compile CUDA C++ to a module for this device; `name` is the file name in messages."""
        ...

    def function(self, module: Any, entry: str) -> Any:
        """Load an `extern "C"` kernel of a module."""
        ...

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: Sequence[np.number[Any]], stream: Any
    ) -> None:
        """Run a kernel on a one-dimensional grid; addresses are uint64."""
        ...

    def __enter__(self) -> Driver: ...

    def __exit__(self, *exc: object) -> None: ...


def open_driver(name: str = "auto", device: int = 0) -> Driver:
    """Open a GPU with CuPy or PyCUDA.

    Args:
        name: "cupy", "pycuda", or "auto": CuPy, or PyCUDA if only that is installed.
        device: number of the GPU in CUDA.
    Raises:
        ConfigError: the name is unknown.
        MissingDependencyError: the package is not installed.
        EngineError: there is no NVIDIA driver, or no such GPU.
    """
    if name not in ("auto", "cupy", "pycuda"):
        raise ConfigError(f"unknown CUDA driver: {name!r}; expected: auto, cupy or pycuda")
    if name == "pycuda" or (name == "auto" and not available("cupy") and available("pycuda")):
        from .pycuda_driver import PyCudaDriver

        return PyCudaDriver(device)
    from .cupy_driver import CupyDriver

    return CupyDriver(device)


@contextmanager
def cuda_errors(package: str, action: str, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise a package's exceptions as errors of facemill, with the package's message.

    Args:
        package: name of the package.
        action: the action, e.g. "copying 12 bytes to the GPU".
        failures: the exceptions of the package. MemoryErrors among them mean that memory is full.
    Raises:
        OutOfMemoryError: the GPU, or page-locked host memory, is full.
        EngineError: any other failure of CUDA.
    """
    try:
        yield
    except failures as err:
        if isinstance(err, MemoryError) or "cudaErrorMemoryAllocation" in str(err):
            raise OutOfMemoryError(f"{action} failed in {package}: {err}. Use a smaller --batch-size") from err
        raise EngineError(f"{action} failed in {package}: {err}. Check the GPU with: facemill doctor") from err
