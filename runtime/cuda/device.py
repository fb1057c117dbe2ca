"""Which NVIDIA GPU this machine has, asked of the driver alone: no package is needed to know."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ..libcuda import open_libcuda

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: e.g. "NVIDIA GeForce RTX 2060".
        compute_capability: e.g. "SM75".
        pci_bus_id: e.g. "0000:01:00.0"; nvidia-smi knows it by that, since it counts otherwise than CUDA.
    """

    name: str
    compute_capability: str
    pci_bus_id: str = ""


def find_gpu() -> Gpu | None:
    """The GPU that CUDA puts first (CUDA_VISIBLE_DEVICES counts), or None without a GPU or driver."""
    cuda = open_libcuda()
    if cuda is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, pci = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        or cuda.cuDeviceGetPCIBusId(pci, len(pci), device)
    )
    if failed:
        return None
    return Gpu(name.value.decode(errors="replace"), f"SM{major.value}{minor.value}", pci.value.decode())
