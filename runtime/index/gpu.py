"""FAISS on a GPU: whether it is there, how much memory is free, and a flat index with the methods of a CPU one."""

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
    """FAISS, built for GPUs.

    Raises:
        MissingDependencyError: it is not installed, or is the one for the CPU.
    """
    faiss = require("faiss", extra="gpu", purpose="searching on a GPU")
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingDependencyError(
            f"FAISS {faiss.__version__} is here without GPU support (faiss-cpu); expected: faiss-gpu. Install it with: "
            f"pip uninstall -y faiss-cpu && pip install faiss-gpu, {_ON_THE_CPU}"
        )
    return faiss


def count_gpus() -> int:
    """GPUs that FAISS can use; 0 without a GPU, without a driver, or where FAISS is not built for them."""
    try:
        return int(gpu_faiss().get_num_gpus())
    except MissingDependencyError:
        return 0


def gpu_memory(device: int) -> tuple[str, int]:
    """A GPU's name and free memory in bytes.

    Raises:
        MissingDependencyError: FAISS for GPUs, or CuPy, is not installed.
        EngineError: there is no such GPU, or it is told to multiply in lower precision than the answer is proven for.
    """
    gpus = gpu_faiss().get_num_gpus()
    if device >= gpus:
        visible = f"GPUs 0 to {gpus - 1}" if gpus else "no GPU"
        raise EngineError(
            f"GPU {device} was asked for; FAISS sees {visible}. See what is wrong with: facemill doctor, {_ON_THE_CPU}"
        )
    override = os.environ.get("NVIDIA_TF32_OVERRIDE", "0")
    if override != "0":
        raise EngineError(
            f"NVIDIA_TF32_OVERRIDE is {override}: FP32 may become TF32, for which no answer is proven; expected: 0. "
            f"Do: unset NVIDIA_TF32_OVERRIDE, {_ON_THE_CPU}"
        )
    driver = open_driver("auto", device)
    with driver:
        return driver.device.name, driver.memory()[0]


class GpuIndex:
    """A flat index of inner products on a GPU; freed when it is dropped.

    FAISS's resources of a GPU serve one thread at a time, so that each index has its own.
    """

    def __init__(self, device: int, dimension: int, *, half: bool, scratch_bytes: int) -> None:
        """Make an empty index.

        Args:
            device: as CUDA counts.
            dimension: D.
            half: rows are stored, and queries rounded, as FP16; sums are FP32.
            scratch_bytes: temporary memory by the memory plan, taken now. What is missing FAISS takes, slowly, at each
                search; so it does for the pages of an upload to FP16.
        Raises:
            EngineError, OutOfMemoryError: the GPU refuses.
        """
        faiss = gpu_faiss()
        self._device = device
        with self._errors():
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(scratch_bytes)
            # Page-locked memory is for pages of queries larger than ours: it would only be taken from the host.
            resources.setPinnedMemory(0)
            config = faiss.GpuIndexFlatConfig()
            config.device, config.useFloat16 = device, half
            if hasattr(config, "use_cuvs"):
                config.use_cuvs = False  # another implementation, whose precision nobody has examined here
            self._index: Any = faiss.GpuIndexFlatIP(resources, dimension, config)

    @property
    def ntotal(self) -> int:
        """Rows in it."""
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Upload (n, D) float32 rows. FAISS reserves room for one call exactly: a second one would copy the first."""
        with self._errors():
            self._index.add(vectors)

    def reset(self) -> None:
        """Drop all rows and free their memory."""
        with self._errors():
            self._index.reset()

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(q, k) scores and rows; k at most ntotal and `memoryplan.MOST_CANDIDATES`."""
        with self._errors():
            scores, rows = self._index.search(queries, k)
        return scores, rows

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """FAISS raises RuntimeError for all that CUDA refuses politely."""
        try:
            yield
        except (RuntimeError, MemoryError) as err:
            reason = " ".join(str(err).split()) or "out of memory"
            short = isinstance(err, MemoryError) or any(
                w in reason for w in ("alloc fail", "out of memory", "cudaMalloc")
            )
            advice = "Close other programs that use its memory" if short else "See what is wrong with: facemill doctor"
            kind = OutOfMemoryError if short else EngineError
            raise kind(f"FAISS failed on GPU {self._device}: {reason}. {advice}, {_ON_THE_CPU}") from err
