"""Query NVIDIA's driver with ctypes, before any GPU package is installed."""

from __future__ import annotations

import ctypes


def open_libcuda() -> ctypes.CDLL | None:
    """The driver's library, or None without a driver."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version of the driver, e.g. (12, 9), with or without a visible GPU; None without a driver."""
    cuda, version = open_libcuda(), ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def count_gpus() -> int:
    """Number of GPUs that CUDA shows to this process; 0 without a driver.

    CUDA reads CUDA_VISIBLE_DEVICES only at its first use in a process.
    """
    cuda, count = open_libcuda(), ctypes.c_int()
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
