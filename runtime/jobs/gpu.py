"""How busy the GPU of this machine is, by NVIDIA's management library, which comes with the driver."""

from __future__ import annotations

import ctypes
from typing import Any

from ..cuda.device import find_gpu

_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class GpuUse:
    """Reads the memory and the load of the first GPU of CUDA. It costs no memory of the GPU. Close it with `close`."""

    def __init__(self) -> None:
        """Find the GPU; without one, or without the library, `read` answers None."""
        self._library: Any = None
        self._device = ctypes.c_void_p()
        gpu = find_gpu()
        if gpu is None or not gpu.pci_bus_id:
            return
        try:
            library = ctypes.CDLL(_LIBRARY)
            failed = library.nvmlInit_v2() or library.nvmlDeviceGetHandleByPciBusId_v2(
                gpu.pci_bus_id.encode(), ctypes.byref(self._device)
            )
        except (OSError, AttributeError):
            return
        if not failed:
            self._library, self._name = library, gpu.name

    def read(self) -> dict[str, Any] | None:
        """The name of the GPU, its memory in bytes, and the share of time in which it worked; None if unknown."""
        if self._library is None:
            return None
        memory, load = _Memory(), _Utilization()
        if self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)):
            return None
        use = {"name": self._name, "used_bytes": memory.used, "total_bytes": memory.total}
        if not self._library.nvmlDeviceGetUtilizationRates(self._device, ctypes.byref(load)):
            use["busy"] = load.gpu / 100
        return use

    def close(self) -> None:
        """Release the library."""
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library = None
