"""A fake NVIDIA driver: a libcuda.so.1 with FAKE_GPUS GPUs, and its nvidia-smi.

Its CUDA numbers GPUs in the reverse order of nvidia-smi, as CUDA may: CUDA's GPU n of N is at bus N - n.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_LIBRARY = r"""
#include <cstdio>
#include <cstdlib>
static int all, seen[64], count = -1;
extern "C" {
int cuDriverGetVersion(int* version) { *version = atoi(getenv("FAKE_CUDA")); return 0; }
int cuInit(unsigned) {
    if (count >= 0) return count ? 0 : 100;  // CUDA_VISIBLE_DEVICES is read once
    all = atoi(getenv("FAKE_GPUS"));
    count = 0;
    const char* shown = getenv("CUDA_VISIBLE_DEVICES");
    for (int n = 0; !shown && n < all; n++) seen[count++] = n;
    while (shown) {  // an invalid number hides all later GPUs
        char* end;
        long n = strtol(shown, &end, 10);
        if (end == shown || n < 0 || n >= all) break;
        seen[count++] = n;
        shown = *end == ',' ? end + 1 : nullptr;
    }
    return count ? 0 : 100;
}
int cuDeviceGetCount(int* found) { *found = count; return 0; }
int cuDeviceGet(int* device, int n) { *device = n; return n < count ? 0 : 101; }
int cuDeviceGetName(char* name, int size, int n) { snprintf(name, size, "Fake %d", seen[n]); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 7 : 5; return 0; }
int cuDeviceGetPCIBusId(char* id, int size, int n) { snprintf(id, size, "0000:%02x:00.0", all - seen[n]); return 0; }
}
"""

_SMI = """#!/bin/sh
for argument in "$@"; do
  case $argument in
    --id=*) gpu=${argument#--id=} ;;
    *memory.free*) memory=yes ;;
  esac
done
if [ "$memory" ]; then echo "1000, 6144"; else echo "the GPU at ${gpu:-every place}"; fi
"""


class FakeDriver:
    """A folder that contains the fake driver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "libcuda.cpp"
        source.write_text(_LIBRARY)
        subprocess.run(["g++", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True, timeout=120)
        (folder / "nvidia-smi").write_text(_SMI)
        (folder / "nvidia-smi").chmod(0o755)

    def environment(self, *, gpus: int, cuda: int = 12090, shown: str | None = None) -> dict[str, str]:
        """Make the environment of a process that must use this driver.

        Args:
            gpus: number of GPUs of the machine.
            cuda: CUDA version of the driver, such as 12090 for 12.9.
            shown: CUDA_VISIBLE_DEVICES; None: not set.
        """
        variables = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        variables |= {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
        path = f"{self.folder}:{os.environ['PATH']}"
        return {
            **variables,
            "LD_LIBRARY_PATH": str(self.folder),
            "PATH": path,
            "FAKE_GPUS": f"{gpus}",
            "FAKE_CUDA": f"{cuda}",
        }
