"""FAISS on a GPU: detection, free memory, and a flat index with the methods of a CPU one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cuda.driver import open_driver
from ..errors import EngineError, MissingDependencyError, OutOfMemoryError
from ..extras import require

_ON_THE_CPU = "or search on the CPU with: --device cpu"


def gpu_faiss() -> ModuleType:
    """Import FAISS with GPU support.

    Raises:
        MissingDependencyError: FAISS is not installed, or has no GPU support.
    """
    faiss = require("faiss", extra="gpu", purpose="searching on a GPU")
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingDependencyError(
            f"FAISS {faiss.__version__} has no GPU support (faiss-cpu); expected: faiss-gpu. Install it with: "
            f"pip uninstall -y faiss-cpu && pip install faiss-gpu, {_ON_THE_CPU}"
        )
    return faiss


def count_gpus() -> int:
    """Count the GPUs that FAISS can use: 0 without a GPU, without a driver, or if FAISS has no GPU support."""
    try:
        return int(gpu_faiss().get_num_gpus())
    except MissingDependencyError:
        return 0


def gpu_memory(device: int) -> tuple[str, int]:
    """The name of a GPU and its free memory in bytes.

    Raises:
        MissingDependencyError: FAISS for GPUs, or CuPy, is not installed.
        EngineError: the GPU does not exist, or the environment allows TF32, whose error bound is not proven here.
    """
    gpus = gpu_faiss().get_num_gpus()
    if device >= gpus:
        visible = f"GPUs 0 to {gpus - 1}" if gpus else "no GPU"
        raise EngineError(
            f"GPU {device} was requested; FAISS sees {visible}. Find the cause with: facemill doctor, {_ON_THE_CPU}"
        )
    override = os.environ.get("NVIDIA_TF32_OVERRIDE", "0")
    if override != "0":
        raise EngineError(
            f"NVIDIA_TF32_OVERRIDE is {override}; expected: 0, because answers are not proven for TF32. "
            f"Run: unset NVIDIA_TF32_OVERRIDE, {_ON_THE_CPU}"
        )
    driver = open_driver("auto", device)
    with driver:
        return driver.device.name, driver.memory()[0]


class GpuIndex:
    """A flat index of inner products on a GPU; freed with the object.

    FAISS's GPU resources serve one thread at a time, so each index has its own.
    """

    def __init__(self, device: int, dimension: int, *, half: bool, scratch_bytes: int) -> None:
        """Make an empty index.

        Args:
            device: CUDA's number of the GPU.
            dimension: D.
            half: store rows, and round queries, as FP16; sums are FP32.
            scratch_bytes: temporary memory by the memory plan, allocated now. If it is too small, FAISS allocates the
                rest at each search, which is slow; it does so for the pages of an upload to FP16 too.
        Raises:
            EngineError: the GPU fails.
            OutOfMemoryError: the GPU has too little memory.
        """
        faiss = gpu_faiss()
        self._device = device
        with self._errors():
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(scratch_bytes)
            # FAISS uses page-locked memory for larger pages of queries than ours: it would waste host memory.
            resources.setPinnedMemory(0)
            config = faiss.GpuIndexFlatConfig()
            config.device, config.useFloat16 = device, half
            if hasattr(config, "use_cuvs"):
                config.use_cuvs = False  # a different implementation: the error bounds here do not cover it
            self._index: Any = faiss.GpuIndexFlatIP(resources, dimension, config)

    @property
    def ntotal(self) -> int:
        """Number of rows."""
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Upload (n, D) float32 rows. Call it once: FAISS reserves exact space, so a second call copies all rows."""
        with self._errors():
            self._index.add(vectors)

    def reset(self) -> None:
        """Drop all rows and free their memory."""
        with self._errors():
            self._index.reset()

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (q, k) scores and rows; k is at most ntotal and `memoryplan.MAX_GPU_CANDIDATES`."""
        with self._errors():
            scores, rows = self._index.search(queries, k)
        return scores, rows

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the RuntimeError of FAISS, which it raises for errors of CUDA, as an error with advice."""
        try:
            yield
        except (RuntimeError, MemoryError) as err:
            reason = " ".join(str(err).split()) or "out of memory"
            short = isinstance(err, MemoryError) or any(
                w in reason for w in ("alloc fail", "out of memory", "cudaMalloc")
            )
            advice = "Close other programs that use its memory" if short else "Find the cause with: facemill doctor"
            kind = OutOfMemoryError if short else EngineError
            raise kind(f"FAISS failed on GPU {self._device}: {reason}. {advice}, {_ON_THE_CPU}") from err
