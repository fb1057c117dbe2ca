"""NVIDIA's driver, asked by ctypes: what can be known of the GPUs before any package for them is installed."""

from __future__ import annotations

import ctypes


def open_libcuda() -> ctypes.CDLL | None:
    """The driver's library, or None without a driver."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, e.g. (12, 9), with or without a GPU in sight; None without a driver."""
    cuda, version = open_libcuda(), ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def count_gpus() -> int:
    """How many GPUs CUDA shows this process; 0 without a driver.

    CUDA reads CUDA_VISIBLE_DEVICES when it is first asked, and never again in the same process.
    """
    cuda, count = open_libcuda(), ctypes.c_int()
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
