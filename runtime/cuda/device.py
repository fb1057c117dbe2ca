"""Which NVIDIA GPUs this machine has and this process sees, asked of the driver alone: no package is needed."""

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


def choose_gpus(devices: Sequence[str]) -> tuple[str, ...]:
    """Hide all GPUs but the named ones from this process and those that it starts. To be called before CUDA is used.

    Args:
        devices: "cpu", or numbers of GPUs as CUDA counts them now; one may stand there twice, for two processes.
            Blanks, leading zeros and empty entries count for nothing.
    Returns:
        The same, as CUDA will count: the first named GPU is 0.
    Raises:
        OptionError: CUDA_VISIBLE_DEVICES shows fewer GPUs than that, or CUDA does not find them.
    """
    devices = [str(int(name)) if name.isdecimal() else name for name in map(str.strip, devices) if name]
    chosen = list(dict.fromkeys(name for name in devices if name.isdecimal()))
    if not chosen:
        return tuple(devices)
    shown = _shown()
    last = max(map(int, chosen))
    if shown is not None and last >= len(shown):
        raise OptionError(
            f"--device names GPU {last}, and CUDA_VISIBLE_DEVICES={','.join(shown)} shows {len(shown)}; "
            f"expected: numbers below that, or another list. To see all GPUs: unset CUDA_VISIBLE_DEVICES"
        )
    names = [name if shown is None else shown[int(name)] for name in chosen]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    found = count_gpus()  # CUDA shows those before the first that it does not know
    if found < len(chosen):
        alias = "" if shown is None else f" ({names[found]} in CUDA_VISIBLE_DEVICES)"
        raise OptionError(
            f"--device names GPU {chosen[found]}{alias}, and CUDA finds no such GPU on this machine; expected: "
            f"cpu, or numbers of GPUs that are here, from 0 on. See what is here with: facemill doctor"
        )
    return tuple(str(chosen.index(name)) if name in chosen else name for name in devices)


def visible_devices_for(device: str) -> str:
    """CUDA_VISIBLE_DEVICES for a process that is to see one GPU of those that this one sees; empty for one hidden."""
    shown = _shown()
    if shown is None:
        return device
    return shown[int(device)] if int(device) < len(shown) else ""


def _shown() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES lets through, in order: numbers, or UUIDs; None where it is not set.

    Set and empty it hides all of them. So does an entry such as -1 with what comes after it.
    """
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return list(takewhile(lambda name: name and not name.startswith("-"), map(str.strip, value.split(","))))
