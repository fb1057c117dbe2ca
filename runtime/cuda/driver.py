"""The one Protocol that a CUDA package answers; `resources` turns it into things that are owned by `with`."""

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
        index: as CUDA counts; CUDA_VISIBLE_DEVICES decides which GPUs it counts.
        name: e.g. "NVIDIA GeForce RTX 2060".
        compute_capability: e.g. "SM75".
    """

    index: int
    name: str
    compute_capability: str


class Driver(Protocol):
    """One GPU through one package, on the device's primary context, which DALI, TensorRT, CuPy and FAISS use too.

    `with driver:` makes it current on the calling thread; each thread that uses it does so. Handles are the package's
    own objects: what they hold is freed when they are dropped. Failures are EngineError or OutOfMemoryError in the
    package's words.

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
        """Device memory, zeroed by nobody."""
        ...

    def address(self, memory: Any) -> int:
        """Where device memory begins."""
        ...

    def allocate_pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """(nbytes,) uint8 of page-locked host memory; freed when the last view of it is dropped."""
        ...

    def new_stream(self) -> Any:
        """A stream that does not wait for the default stream."""
        ...

    def stream_address(self, stream: Any) -> int:
        """The cudaStream_t, for packages that take it as a number."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Wait until all that was given to a stream is done."""
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
        """An event that puts the waiting thread to sleep; time stamps cost a little."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Mark the stream's present end."""
        ...

    def synchronize_event(self, event: Any) -> None:
        """Wait until the marked work is done."""
        ...

    def elapsed_s(self, start: Any, stop: Any) -> float:
        """Seconds between two events that take time stamps, both done."""
        ...

    def compile(self, source: str, name: str) -> Any:
        """CUDA C++ to a module for this device; `name` is the file's, for messages."""
        ...

    def function(self, module: Any, entry: str) -> Any:
        """An `extern "C"` kernel of a module."""
        ...

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: Sequence[np.number[Any]], stream: Any
    ) -> None:
        """Run a kernel on a grid of one dimension; addresses are uint64."""
        ...

    def __enter__(self) -> Driver: ...

    def __exit__(self, *exc: object) -> None: ...


def open_driver(name: str = "auto", device: int = 0) -> Driver:
    """A GPU through CuPy or PyCUDA.

    Args:
        name: "cupy", "pycuda", or "auto": CuPy, or PyCUDA where only that is installed.
        device: as CUDA counts.
    Raises:
        ConfigError: there is no driver of that name.
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
def cuda_errors(package: str, what: str, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn a package's exceptions into ours, with its own words for them.

    Args:
        package: who speaks.
        what: what is being done, e.g. "copying 12 bytes to the GPU".
        failures: the exceptions that it raises; those that are MemoryErrors too mean that memory is short.
    Raises:
        OutOfMemoryError: the GPU, or the host's page-locked memory, has no room.
        EngineError: anything else that CUDA refused.
    """
    try:
        yield
    except failures as err:
        if isinstance(err, MemoryError) or "cudaErrorMemoryAllocation" in str(err):
            raise OutOfMemoryError(f"{what} failed in {package}: {err}. Use a smaller --batch-size") from err
        raise EngineError(f"{what} failed in {package}: {err}. See what is wrong with: facemill doctor") from err
