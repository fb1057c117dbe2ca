"""The NVIDIA GPUs of this machine and process, as the driver reports them, without any package."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..errors import OptionError
from ..libcuda import count_gpus, open_libcuda

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: e.g. "NVIDIA GeForce RTX 2060".
        compute_capability: e.g. "SM75".
        pci_bus_id: e.g. "0000:01:00.0", for nvidia-smi, which numbers GPUs differently from CUDA.
    """

    name: str
    compute_capability: str
    pci_bus_id: str = ""


def find_gpu() -> Gpu | None:
    """The first GPU of CUDA, which respects CUDA_VISIBLE_DEVICES; None without a GPU or driver."""
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


def choose_gpus(devices: Sequence[str]) -> tuple[str, ...]:
    """Hide all other GPUs from this process and its child processes. Call it before CUDA is used.

    Args:
        devices: "cpu", or numbers of GPUs as CUDA counts them now. A number may occur twice, for two processes. Blanks,
            leading zeros and empty entries are ignored.
    Returns:
        The devices as CUDA will count them: the first chosen GPU is 0.
    Raises:
        OptionError: CUDA_VISIBLE_DEVICES shows fewer GPUs, or CUDA does not find them.
    """
    devices = [str(int(name)) if name.isdecimal() else name for name in map(str.strip, devices) if name]
    chosen = list(dict.fromkeys(name for name in devices if name.isdecimal()))
    if not chosen:
        return tuple(devices)
    visible = _visible_gpus()
    last = max(map(int, chosen))
    if visible is not None and last >= len(visible):
        raise OptionError(
            f"--device names GPU {last}, but CUDA_VISIBLE_DEVICES={','.join(visible)} shows {len(visible)}; "
            f"expected: a lower number, or another list. To use all GPUs: unset CUDA_VISIBLE_DEVICES"
        )
    names = [name if visible is None else visible[int(name)] for name in chosen]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    count = count_gpus()  # CUDA shows the GPUs before the first that it does not know
    if count < len(chosen):
        alias = "" if visible is None else f" ({names[count]} in CUDA_VISIBLE_DEVICES)"
        raise OptionError(
            f"--device names GPU {chosen[count]}{alias}, but CUDA finds no such GPU on this machine; expected: "
            f"cpu, or numbers of existing GPUs, from 0. List them with: facemill doctor"
        )
    return tuple(str(chosen.index(name)) if name in chosen else name for name in devices)


def visible_devices_for(device: str) -> str:
    """CUDA_VISIBLE_DEVICES for a process that uses one of this process's GPUs; empty if the GPU is hidden."""
    visible = _visible_gpus()
    if visible is None:
        return device
    return visible[int(device)] if int(device) < len(visible) else ""


def _visible_gpus() -> list[str] | None:
    """The GPUs in CUDA_VISIBLE_DEVICES, in order: numbers or UUIDs; None if it is not set.

    An empty value hides all GPUs. A negative entry like -1 hides itself and all entries after it.
    """
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return list(takewhile(lambda name: name and not name.startswith("-"), map(str.strip, value.split(","))))
