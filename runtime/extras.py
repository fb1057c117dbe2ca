"""Optional packages: imported when first needed, or an error with the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .errors import Interrupted, MissingDependencyError
from .libcuda import driver_cuda

# The distributions of each extra in pyproject.toml, so that a message can name a command that works anywhere.
EXTRAS = {
    "cluster": "scipy",
    "cpu": "faiss-cpu",
    "gpu": "'cupy-cuda12x[ctk]' faiss-gpu nvidia-dali-cuda120 tensorrt-rtx-cu12",
    "gpu13": "'cupy-cuda13x[ctk]' faiss-gpu nvidia-dali-cuda130 tensorrt-rtx-cu13",
    "map": "plotly scikit-learn",
    "parquet": "pyarrow",
    "pycuda": "pycuda",
    "qdrant": "qdrant-client",
    "report": "matplotlib",
    "rtx": "tensorrt-rtx-cu12",
    "rtx13": "tensorrt-rtx-cu13",
    "tensorrt": "tensorrt-cu12",
}
# CUDA 13's packages want a driver that has it: 580 or newer. Without a driver nothing tells, and CUDA 12's run on both.
_ON_CUDA_13 = {"gpu": "gpu13", "rtx": "rtx13"}


def pip_install(extra: str) -> str:
    """The command that installs what an extra stands for, in the kind that this machine's driver runs."""
    if (driver_cuda() or (12, 0)) >= (13, 0):
        extra = _ON_CUDA_13.get(extra, extra)
    index = "--extra-index-url https://pypi.nvidia.com " if extra == "tensorrt" else ""  # PyPI has no libraries of it
    return f"pip install {index}{EXTRAS[extra]}"


def require(module: str, *, extra: str = "", purpose: str = "") -> ModuleType:
    """Import `module`, or say how to get it.

    Args:
        module: import name, e.g. "tensorrt_rtx".
        extra: the extra of this package that brings it; empty for a base dependency.
        purpose: what cannot be done without it, for the message.
    Raises:
        MissingDependencyError: it is not installed, or does not import.
        Interrupted, KeyboardInterrupt: a signal arrived meanwhile.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as err:
        cause: BaseException | None = err
        while cause is not None:  # a compiled module turns a signal that arrives while it loads into an ImportError
            if isinstance(cause, (Interrupted, KeyboardInterrupt)):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        command = pip_install(extra) if extra else f"pip install {module}"
        what = f" ({purpose})" if purpose else ""
        raise MissingDependencyError(
            f"the package '{module}' is needed{what} and does not import: {err}. Install it with: {command}"
        ) from err


def available(module: str) -> bool:
    """Whether `module` is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
